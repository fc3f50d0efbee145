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
    """Runs the command; a user's mistake is told without a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from sweeps.config.faults import SpecError

    try:
        app(prog_name="sweeps")
    except (SpecError, ValueError, OSError) as error:
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ not in ("ClusterError", "ClusterFailure", "TrackingError"):
            raise
        errors.print(str(error), highlight=False, soft_wrap=True)
        sys.exit(1)
