"""The `sweeps` command. Every verb is a function with `@app.command()` in a module of this package.

Exit status: 0 done, 1 the sweep failed or was stopped, 2 the request was wrong and nothing was started.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import pkgutil
import sys
import traceback

from sweeps.cli.app import app, errors
from sweeps.errors import SweepsError

__all__ = ["import_verbs", "main"]


def import_verbs() -> None:
    """Import every module of this package, which adds its verbs to the command."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"{__name__}.{module.name}")


import_verbs()


def main() -> None:
    """Run the command and exit. An exception that is not a SweepsError is a bug: its traceback is printed as well."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app(prog_name="sweeps")
    except SweepsError as error:
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except Exception:
        traceback.print_exc()
        errors.print(
            "This is a bug of sweeps. Please report the traceback above, with the command and the sweep file, to "
            f"{_report_address()}. What is recorded is kept; the same command continues.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        sys.exit(1)


def _report_address() -> str:
    """Return where bugs are reported: a URL of the installed package, preferably that of its issues."""
    try:
        urls = importlib.metadata.metadata("sweeps").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        urls = []
    by_label = {label.strip().lower(): url.strip() for label, _, url in (entry.partition(",") for entry in urls)}
    for label in ("issues", "bug tracker", "repository", "source", "homepage"):
        if label in by_label:
            return by_label[label]
    return "the maintainers of this installation"
