"""Every exception and warning of the package, and the redaction of secrets in their text.

A message says what was found, what was expected, and how to fix it. Every error is a
`RelationNeuronsError`, and also the builtin that a caller would expect (`UnknownRelationError` is a
`KeyError`), so either kind of `except` works. `LeftOutWarning` is not an error: the result is sound, but
does not cover everything that was asked for.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

__all__ = [
    "AblationError",
    "ActivationError",
    "AnswerError",
    "ContextLengthError",
    "DoseError",
    "EngineError",
    "HookError",
    "LeftOutWarning",
    "ModelLoadError",
    "OutOfMemoryError",
    "RelationFormatError",
    "RelationNeuronsError",
    "ResultsError",
    "TemplateError",
    "TooFewFactsError",
    "UnknownModelError",
    "UnknownOptionError",
    "UnknownRelationError",
    "UnknownSiteError",
    "near_matches",
    "one_line",
    "redacted",
]

_HIDDEN = "[hidden]"

_VARIABLE = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY)$", re.IGNORECASE)

_FORMS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), _HIDDEN),
    (re.compile(r"(?i)\b(bearer|token)([ =:]+)[A-Za-z0-9._~+/-]{16,}=*"), rf"\1\2{_HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{_HIDDEN}@"),
)

_SHORTEST = 8
"""Shorter values are not hidden: they are words that may occur anywhere."""


def redacted(text: str) -> str:
    """Hides access tokens, recognised by their form or by the environment variables that hold them.

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
    """Returns an error's type and first line, at most 200 characters, without secrets."""
    lines = str(error).strip().splitlines()
    return redacted(f"{type(error).__name__}: {lines[0] if lines else ''}")[:200].rstrip(" .")


class RelationNeuronsError(Exception):
    """Base class of every error that this package raises deliberately."""

    def __str__(self) -> str:
        # KeyError would print the repr of its argument; a message is meant to be read.
        return redacted(str(self.args[0])) if self.args else ""


class RelationFormatError(RelationNeuronsError, ValueError):
    """Relation data that cannot be read; the message names the file or row and the expected form."""


class TemplateError(RelationFormatError):
    """A template without exactly one `{}`, or one that would corrupt the answer's tokens."""


class TooFewFactsError(RelationNeuronsError, ValueError):
    """Too few facts to split, or too few known ones to rank or judge on."""


class LeftOutWarning(UserWarning):
    """Relations that a ranking leaves out, each with the reason and a remedy."""


class UnknownRelationError(RelationNeuronsError, KeyError):
    """A relation (or shipped set) that does not exist; the message names near matches."""


class UnknownModelError(RelationNeuronsError, KeyError):
    """A model name that is neither a known name, nor a folder, nor a `.gguf` file."""


class UnknownSiteError(RelationNeuronsError, KeyError):
    """A site that does not exist, or that this model does not have."""


class UnknownOptionError(RelationNeuronsError, ValueError):
    """An option value that is not one of the choices; the message names them."""


class ModelLoadError(RelationNeuronsError, RuntimeError):
    """Weights or tokenizer that cannot be loaded: truncated, unreachable or unsupported."""


class AnswerError(RelationNeuronsError, ValueError):
    """An answer that cannot be tokenised as a continuation of its prompt."""


class ContextLengthError(RelationNeuronsError, ValueError):
    """A prompt longer than the model's context."""


class ActivationError(RelationNeuronsError, ValueError):
    """Activations that contain NaN or Inf; the message names the first neuron and prompt."""


class HookError(RelationNeuronsError, RuntimeError):
    """A hook that did not fire, so that a number would silently be the intact model's."""


class AblationError(RelationNeuronsError, RuntimeError):
    """An ablation that did not set the requested values, or neurons that do not exist."""


class DoseError(RelationNeuronsError, ValueError):
    """A dose below one, or above the number of available neurons."""


class EngineError(RelationNeuronsError, RuntimeError):
    """An engine that is not installed, cannot be reached, or lost its workers."""


class OutOfMemoryError(RelationNeuronsError, MemoryError):
    """A single prompt, or the model itself, does not fit into memory; the message says what would."""


class ResultsError(RelationNeuronsError, OSError):
    """A results folder that is missing a file, or that holds another run."""


def near_matches(found: str, known: Iterable[str]) -> str:
    """Returns the end of an error message: the near matches of `found`, or the known names.

    >>> near_matches("country_captial", ["country_capital", "star_constellation"])
    'Did you mean country_capital?'
    """
    names = list(known)
    close = difflib.get_close_matches(found.lower(), [name.lower() for name in names], n=3)
    by_lower = {name.lower(): name for name in names}
    if close:
        return f"Did you mean {' or '.join(by_lower[name] for name in close)}?"
    shown = ", ".join(sorted(names)[:12])
    return f"Known: {shown}{', …' if len(names) > 12 else ''}."
