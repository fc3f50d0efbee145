"""The `sweeps` command. Thin: every verb hands over to the module that does it.

Exit status: 0 done, 1 the sweep failed or was stopped, 2 the request was wrong and nothing was started.
"""

from __future__ import annotations

import logging
import sys

from sweeps.cli import define, read, remote, train
from sweeps.cli.app import app, errors

__all__ = ["define", "main", "read", "remote", "train"]


def main() -> None:
    """Run the command. A `SweepsError` is printed without a traceback and gives the exit status; anything else is a bug."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from sweeps.errors import SweepsError

    try:
        app(prog_name="sweeps")
    except SweepsError as error:
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(error.exit_status)
    except Exception:
        errors.print(
            "sweeps stopped on an error of its own. Please report the traceback below, with the command and the sweep "
            "file, to whoever maintains this installation. Records are kept; the same command continues.",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        raise
