"""`python -m sweeps.cli`: the command of this environment, as jobs and tests start it."""

from sweeps.cli import main

main()
