"""Redaction: what gives access to something never reaches a message, a manifest or a report."""

from __future__ import annotations

import os
import re

__all__ = ["one_line", "redacted"]

_HIDDEN = "[hidden]"
_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY)$", re.IGNORECASE)
_FORMS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), _HIDDEN),
    (re.compile(r"(?i)\b(bearer|token)([ =:]+)[A-Za-z0-9._~+/-]{16,}=*"), rf"\1\2{_HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{_HIDDEN}@"),
)
_SHORTEST = 8
"""A shorter value of a variable is a word that may stand anywhere."""


def redacted(text: str) -> str:
    """Hides access tokens: by their form, and by the environment variables that hold them.

    >>> redacted("401 for https://me:pass@example.org with hf_abcdefghijkl")
    '401 for https://[hidden]@example.org with [hidden]'
    """
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    for form, instead in _FORMS:
        text = form.sub(instead, text)
    return text


def one_line(error: Exception) -> str:
    """An error's kind and first line, at most 200 characters, without secrets."""
    lines = str(error).strip().splitlines()
    return redacted(f"{type(error).__name__}: {lines[0] if lines else ''}")[:200].rstrip(" .")
