"""A running sweep: the driver, the worker, Ray Tune and the progress display."""
