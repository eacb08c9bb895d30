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


def renamed(**earlier: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Lets a function accept a keyword under its earlier name too, with a DeprecationWarning.

    >>> @renamed(score="contrast")
    ... def top(*, contrast="specific"):
    ...     return contrast
    >>> top(score="background")
    'background'

    Args:
        earlier: maps a keyword's earlier name to its present one.

    Raises:
        TypeError: a keyword is given under both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in earlier.keys() & kwargs.keys():
                if earlier[old] in kwargs:
                    raise TypeError(
                        f"{function.__name__} got both {old!r} and its present name {earlier[old]!r}; "
                        "expected one of them."
                    )
                warnings.warn(
                    f"{function.__name__}: the keyword {old!r} is now called {earlier[old]!r}.",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[earlier[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
