"""What is wrong with a data set, and what to do about it."""

from __future__ import annotations


class DataError(ValueError):
    """Data that are missing, broken, or not enough. The message names the file, what is expected and what to do."""
