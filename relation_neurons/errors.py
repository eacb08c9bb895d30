"""Errors: each says what was found, what was expected, and how to mend it.

Every error is a `RelationNeuronsError`, and also the builtin that a caller would expect
(`UnknownRelationError` is a `KeyError`), so either kind of `except` works. `LeftOutWarning` is no error:
the result is sound, and not about everything that was asked for.
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


class RelationNeuronsError(Exception):
    """Base class of every error that this package raises on purpose."""

    def __str__(self) -> str:
        # KeyError would print the repr of its argument; a message is for reading, by anyone.
        return redacted(str(self.args[0])) if self.args else ""


class RelationFormatError(RelationNeuronsError, ValueError):
    """Relation data that cannot be read: its file or row and the expected form are named."""


class TemplateError(RelationFormatError):
    """A template without exactly one `{}`, or one that would spoil the answer's tokens."""


class TooFewFactsError(RelationNeuronsError, ValueError):
    """Too few facts to split, or too few known ones to rank or judge on."""


class LeftOutWarning(UserWarning):
    """Relations that a ranking leaves out, each with its reason and what helps."""


class UnknownRelationError(RelationNeuronsError, KeyError):
    """A relation (or shipped set) that is not there; the near matches are named."""


class UnknownModelError(RelationNeuronsError, KeyError):
    """A model name that is neither known, nor a folder, nor a `.gguf` file."""


class UnknownSiteError(RelationNeuronsError, KeyError):
    """A site that does not exist, or that this model does not have."""


class UnknownOptionError(RelationNeuronsError, ValueError):
    """An option value outside its choices; the choices are named."""


class ModelLoadError(RelationNeuronsError, RuntimeError):
    """Weights or tokenizer that cannot be loaded: truncated, unreachable or unsupported."""


class AnswerError(RelationNeuronsError, ValueError):
    """An answer that cannot be tokenised as a continuation of its prompt."""


class ContextLengthError(RelationNeuronsError, ValueError):
    """A prompt longer than the model's context."""


class ActivationError(RelationNeuronsError, ValueError):
    """Activations with NaN or Inf; the first neuron and prompt are named."""


class HookError(RelationNeuronsError, RuntimeError):
    """A hook that did not fire, so a number would silently be the intact model's."""


class AblationError(RelationNeuronsError, RuntimeError):
    """An ablation whose values are not what was asked for, or neurons that do not exist."""


class DoseError(RelationNeuronsError, ValueError):
    """A dose above the number of neurons there are, or below one."""


class EngineError(RelationNeuronsError, RuntimeError):
    """An engine that is not installed, cannot be reached, or lost its workers."""


class OutOfMemoryError(RelationNeuronsError, MemoryError):
    """One prompt alone, or the model itself, does not fit into memory; what would is said."""


class ResultsError(RelationNeuronsError, OSError):
    """A results folder that is missing a file, or that holds another run."""


def near_matches(found: str, known: Iterable[str]) -> str:
    """Ends an error message with the near matches of `found`, or with what is known.

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
