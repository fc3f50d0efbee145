"""What came out of a sweep, as one plain object and as text for people and for other programs.

    found = report(store, "quickstart")
    print(as_markdown(found))

The same records give the same report, byte for byte, except for `totals.timing`.
"""

from __future__ import annotations

from sweeps.results.formats import as_csv, as_json, as_markdown
from sweeps.results.report import Standing, report, standings

__all__ = ["Standing", "as_csv", "as_json", "as_markdown", "report", "standings"]
