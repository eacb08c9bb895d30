"""Numbers as text: signed changes, intervals, three significant figures."""

from __future__ import annotations

import math

__all__ = ["MINUS", "gigabytes", "interval", "number", "three_figures"]

MINUS = "\N{MINUS SIGN}"
_DIGITS = 2


def number(value: float | None, digits: int = _DIGITS) -> str:
    """Returns a signed change with a true minus sign, or `n/a` for a missing value.

    >>> number(-0.123), number(0.0), number(0.5)
    ('\N{MINUS SIGN}0.12', '0.00', '+0.50')
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    rounded = round(float(value), digits)
    sign = MINUS if rounded < 0 else "+" if rounded > 0 else ""
    return f"{sign}{abs(rounded):.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """Returns an interval as text: `low to high`."""
    return f"{number(low)} to {number(high)}"


def three_figures(value: float, *, sign: bool = True) -> str:
    """Returns a number to three significant figures, with a true minus sign.

    >>> three_figures(-0.01234), three_figures(1234.5, sign=False), three_figures(0.0)
    ('\N{MINUS SIGN}0.0123', '1,234', '0')
    """
    plus = "+" if sign else ""
    if abs(value) >= 999.5:
        text = f"{value:{plus},.0f}"
    elif abs(value) >= 1e-4:
        text = f"{value:{plus}#.3g}".rstrip(".")
    else:
        text = f"{value:{plus}.1e}" if value else "0"
    return text.replace("-", MINUS)


def gigabytes(size: int | float, digits: int = 2) -> str:
    """Returns a number of bytes in decimal gigabytes.

    >>> gigabytes(1_530_000_000), gigabytes(24e9, digits=1)
    ('1.53 GB', '24.0 GB')
    """
    return f"{size / 1e9:.{digits}f} GB"
