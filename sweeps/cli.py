"""The `sweeps` command. Thin: every verb hands over to the module that does it.

Exit status: 0 done, 1 the sweep failed or was stopped, 2 the request was wrong and nothing was started.
"""

from __future__ import annotations

import logging
import sys

from sweeps import verbs_cluster, verbs_defining, verbs_nodes, verbs_reading, verbs_remote, verbs_training
from sweeps.terminal import app, errors

__all__ = [
    "main", "verbs_cluster", "verbs_defining", "verbs_nodes", "verbs_reading", "verbs_remote", "verbs_training",
]  # fmt: skip


def main() -> None:
    """Runs the command; a user's mistake is told without a traceback."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    from sweeps.faults import SpecError

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


if __name__ == "__main__":
    main()
