"""The `sweeps` command. Every verb is a function with `@app.command()` in a module of this package.

Exit status: 0 done, 1 the sweep failed or was stopped, 2 the request was wrong and nothing was started.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import logging
import pkgutil
import sys
import traceback
from pathlib import Path

from sweeps.cli import output
from sweeps.cli.app import app, errors
from sweeps.errors import SweepsError, disk_full
from sweeps.machine import call_loopback_directly, ensure_folders

__all__ = ["import_verbs", "main"]


def import_verbs() -> None:
    """Import every module of this package, which adds its verbs to the command."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "__main__":
            importlib.import_module(f"{__name__}.{module.name}")


def hidden_packages() -> dict[str, str]:
    """Return those packages of this project in whose place Python would import another one, with its location.

    A folder on the path before the installation does that: PYTHONPATH, or the working directory with `python -m`.
    """
    here, found = Path(__file__).absolute().parents[2], {}
    for name in ("arith_models", "cluster", "tasks"):
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).parent if spec is not None and spec.origin and spec.submodule_search_locations else None
        if place is None or place.resolve() != (here / name).resolve():
            locations = list(spec.submodule_search_locations or [spec.origin or "?"]) if spec is not None else ["nowhere"]
            found[name] = locations[0]
    return found


_HIDDEN = hidden_packages()
if not _HIDDEN:
    import_verbs()


def main() -> None:
    """Run the command and exit. An exception that is not a SweepsError is a bug: its traceback is printed as well."""
    output.prepare()
    if _HIDDEN:
        others = "; ".join(f"`{name}` would be imported from {place}" for name, place in _HIDDEN.items())
        errors.print(
            f"sweeps is installed in {Path(__file__).resolve().parents[2]}, but {others}. Leave that folder out of PYTHONPATH, "
            "and run `sweeps` instead of `python -m sweeps.cli` there.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        sys.exit(2)
    # A report of 10,000 lanes is millions of small objects that live to the end. To look for garbage among them after every 700
    # new ones took a third of its time.
    gc.set_threshold(100_000, 50, 50)
    call_loopback_directly()
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.root.handlers:
        handler.setFormatter(output.PlainFormatter("%(levelname)s: %(message)s"))
    try:
        said = ensure_folders()
        if said:
            errors.print(f"note: {said}", highlight=False, soft_wrap=True)
        app(prog_name="sweeps")
    except SweepsError as error:
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(1 if disk_full(error) else error.exit_status)
    except Exception as error:
        if output.lost(error):
            sys.exit(1)
        if full := disk_full(error):
            errors.print(
                f"a disk is full ({full}): free some space. What is recorded is kept; the same command continues.",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            sys.exit(1)
        traceback.print_exc()
        errors.print(
            "This is a bug of sweeps. Please report the traceback above, with the command and the sweep file, to "
            f"{_report_address()}. What is recorded is kept; the same command continues.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        sys.exit(1)
    finally:
        if reason := output.finish():
            errors.print(reason, highlight=False, soft_wrap=True)
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
