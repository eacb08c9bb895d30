"""What several commands do: load the model that a results folder was made with, say, and stop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from relation_neurons.errors import ResultsError

if TYPE_CHECKING:  # importing it takes seconds, which --help shall not
    from relation_neurons.backends.base import HookedModel

__all__ = ["interruptible", "load_noted_model", "say"]


def load_noted_model(
    out: Path, known: dict[str, Any], model: str | None, device: str | None
) -> HookedModel:
    """Loads the model that a manifest notes.

    Args:
        out: the results folder, named in the error.
        known: the manifest's `model`.
        model: where it is, if it moved.
        device: the run's by default.

    Raises:
        ResultsError: its weights are not those of the run.
    """
    from relation_neurons.backends.neuron_sites import weight_hash
    from relation_neurons.models.loading import load_model

    name = model or known["name"]
    loaded = load_model(name, dtype=known["dtype"], device=device or known["device"])
    if weight_hash(loaded) != known["weight_hash"]:
        raise ResultsError(f"{out} was made with another model than {name}: the weights differ.")
    return loaded


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Says what Ctrl-C leaves."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on after what is whole", err=True)
        raise typer.Exit(130) from None


def say(line: str) -> None:
    """Prints what a stage says of itself."""
    typer.echo(line)
