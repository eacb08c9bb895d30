"""The version of the package, those of the packages that decide its numbers, and renamed keywords.

`pyproject.toml` and every manifest read the version here.
"""

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
    """Returns the versions of this package and of those that decide a run's numbers."""
    others = ("torch", "transformer_lens", "transformers", "numpy", "pandas")
    return {
        "relation_neurons": __version__,  # not from metadata, which may be stale in an old checkout
        **{name: importlib.metadata.version(name) for name in others},
    }


def renamed(**earlier: str | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function accept a keyword of earlier versions too, with a DeprecationWarning.

    >>> @renamed(score="contrast")
    ... def top(*, contrast="specific"):
    ...     return contrast
    >>> top(score="background")
    'background'

    Args:
        earlier: maps a keyword's earlier name to its present one, or to None where it says nothing any more.

    Raises:
        TypeError: a keyword is given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in earlier.keys() & kwargs.keys():
                now = earlier[old]
                if now in kwargs:
                    raise TypeError(
                        f"{function.__name__} got both {old!r} and its present name {now!r}; "
                        "expected one of them."
                    )
                said = f"is now called {now!r}" if now else "has no effect any more"
                warnings.warn(
                    f"{function.__name__}: the keyword {old!r} {said}.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                value = kwargs.pop(old)
                if now:
                    kwargs[now] = value
            return function(*args, **kwargs)

        return call

    return decorate
