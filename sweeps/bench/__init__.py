"""Benchmarks of the engine, of units and of the driver (`sweeps bench`)."""
