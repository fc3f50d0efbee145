"""Models: units (layers) and networks (arrangements of units, and whole models), each written for ONE seed.

The contracts are in `base`. A module of `units` or `networks` is registered by existing. The package imports torch only.
"""
