"""Numbers as short text: 17.3k steps, 4.2e-7, 99.8 percent."""

from __future__ import annotations

import math
from collections.abc import Iterable

UNKNOWN = "–"


def steps(value: float | None) -> str:
    """Return three significant digits with k, M or G: 850, 4.5k, 1.52M. A dash for None."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 999.5 on it would be written as 1000 of the smaller unit.
        if abs(value) >= 0.9995 * size:
            return _three_digits(value / size) + unit
    return _three_digits(value)


def number(value: float | None, digits: int = 2) -> str:
    """Return significant digits, with a short exponent: 0.41, 4.2e-7. A dash for None."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{digits}g}"
    if value != 0 and not 1e-2 <= abs(value) < 1e6:
        text = f"{value:.{digits - 1}e}"
    mantissa, e, exponent = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def percent(fraction: float | None) -> str:
    """Return whole percent, or one decimal where 0 or 100 would be wrong: 98, 99.8, 100. A dash for None."""
    if fraction is None:
        return UNKNOWN
    rounded = round(100 * fraction)
    return str(rounded) if fraction in (0, 1) or 0 < rounded < 100 else f"{100 * fraction:.1f}"


def ranges(numbers: Iterable[int]) -> str:
    """Return `0 to 24, 1000`."""
    parts: list[list[int]] = []
    for each in sorted(numbers):
        if parts and each == parts[-1][1] + 1:
            parts[-1][1] = each
        else:
            parts.append([each, each])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in parts)


def counted(count: int, noun: str) -> str:
    """Return `1 seed`, `20 seeds`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _three_digits(value: float) -> str:
    text = f"{value:.3g}"
    return str(round(value)) if "e" in text else text
