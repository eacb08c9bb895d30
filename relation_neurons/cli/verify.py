"""The command line's check of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relation_neurons.errors import ResultsError, UnknownOptionError

__all__ = ["verify"]

_SAMPLE = 3


def verify(
    folder: Annotated[Path | None, typer.Argument(help="The results folder.")] = None,
    out: Annotated[Path | None, typer.Option(help="The same, as other commands take it.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            help=f"Ablated sets recomputed; {_SAMPLE} by default where the model is here, 0 for none."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    elsewhere: Annotated[
        bool, typer.Option("--elsewhere", help="Another machine: rounding may differ.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The model, if it moved.")] = None,
    device: Annotated[str | None, typer.Option(help="The run's by default.")] = None,
) -> None:
    """Check a results folder: every checksum, its tables against one another, a sample recomputed.

    Nothing is changed. A model on the hub is fetched only if --sample or --model asks for it.
    """
    from relation_neurons.results.verification import verify_folder

    if (folder is None) == (out is None):
        raise UnknownOptionError("Give one results folder: relation-neurons verify DIR.")
    place = folder or out
    assert place is not None
    checks = verify_folder(place)
    if all(checks):
        checks += _recomputed(place, sample, seed, elsewhere, model, device)
    else:
        typer.echo("nothing was recomputed, as the tables cannot be relied on")
    wrong = [check for check in checks if not check]
    for check in wrong:
        typer.echo(f"{check.what}: {check.problem}")
    if wrong:
        raise ResultsError(f"{len(wrong)} of {len(checks)} checks of {place} failed.")
    typer.echo(f"{place}: {len(checks)} checks passed")


def _recomputed(
    place: Path,
    sample: int | None,
    seed: int,
    elsewhere: bool,
    model: str | None,
    device: str | None,
) -> list[Any]:
    """Recomputes a sample, and says how many, or why none."""
    from relation_neurons.models.checkpoints import is_here
    from relation_neurons.models.loading import load_model
    from relation_neurons.results.recompute import recompute_sample
    from relation_neurons.results.results import load_results

    results = load_results(place)
    known = results.manifest["model"]
    name = model or known["name"]
    if sample is not None and sample < 0:
        raise UnknownOptionError(f"sample is {sample}; expected a count, or 0 for none.")
    if sample == 0:
        typer.echo("nothing was recomputed, as asked for")
        return []
    if sample is None and model is None and not is_here(name):
        typer.echo(
            f"nothing was recomputed: the model {name} is not on this machine. Say where it is with "
            f"--model, or --sample {_SAMPLE} to fetch it."
        )
        return []
    loaded = load_model(name, dtype=known["dtype"], device=device or known["device"])
    count = _SAMPLE if sample is None else sample
    checks = recompute_sample(results, loaded, count, seed=seed, elsewhere=elsewhere)
    typer.echo(checks[0].what)
    return checks
