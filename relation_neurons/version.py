"""The version, in one place: `pyproject.toml` reads it here, and so does every manifest."""

from __future__ import annotations

import functools
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["package_versions", "renamed"]

__version__ = "0.2.0"

P = ParamSpec("P")
R = TypeVar("R")


def package_versions() -> dict[str, str]:
    """Returns the versions of the packages that decide a run's numbers."""
    others = ("torch", "transformer_lens", "transformers", "numpy", "pandas")
    return {
        "relation_neurons": __version__,  # not the metadata: those of an old checkout may be stale
        **{name: importlib.metadata.version(name) for name in others},
    }


def renamed(**earlier: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function take a keyword under its earlier name, too, with a DeprecationWarning.

    >>> @renamed(score="contrast")
    ... def top(*, contrast="specific"):
    ...     return contrast
    >>> top(score="background")
    'background'

    Args:
        earlier: the name that a keyword has now, by its earlier one.

    Raises:
        TypeError: a keyword was given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in earlier.keys() & kwargs.keys():
                if earlier[old] in kwargs:
                    raise TypeError(f"{function.__name__} got both {old!r} and {earlier[old]!r}.")
                warnings.warn(
                    f"{function.__name__}: {old!r} is called {earlier[old]!r} now.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[earlier[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
