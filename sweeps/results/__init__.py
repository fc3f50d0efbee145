"""The results of a sweep: metrics over its seeds, and the report as text for people and for other programs.

    found = report(store, "quickstart")
    print(as_markdown(found))

The same records give the same report, byte for byte, except for its wall times.

    metrics.py     the registry of metrics
    statistics.py  confidence intervals
    summary.py     one configuration's metrics, and the order of configurations
    report.py      the report of a sweep; formats.py: as Markdown, JSON or CSV
    figures.py, export.py, thresholds.py
"""

from __future__ import annotations

from sweeps.results.formats import FORMATS, as_csv, as_json, as_markdown
from sweeps.results.report import Report, report
from sweeps.results.summary import RankedConfiguration

__all__ = ["FORMATS", "RankedConfiguration", "Report", "as_csv", "as_json", "as_markdown", "report"]
