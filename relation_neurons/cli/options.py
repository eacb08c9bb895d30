"""The command line's options: their types and help, and what they are in Python."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relation_neurons.errors import ResultsError

if TYPE_CHECKING:  # importing it takes seconds, which --help shall not
    from relation_neurons.backends.base import HookedModel

__all__ = ["interruptible", "load_noted_model", "say"]

Model = Annotated[
    str, typer.Option(help="A name (see `models`), a Hugging Face folder or a .gguf file.")
]

AskedModel = Annotated[
    str | None,
    typer.Option("--model", help="Also ask this model which facts it knows (see `models`)."),
]

Relations = Annotated[
    str,
    typer.Option(help="A shipped set or relation (see `relations list`), lre, a file or a folder."),
]

Out = Annotated[Path, typer.Option(help="The results folder.")]

ForceNew = Annotated[
    bool, typer.Option("--force-new", help="Move a folder that is there aside and begin anew.")
]

Preset = Annotated[str, typer.Option(help="`default`, or `paper`: what the published code does.")]

Doses = Annotated[
    str | None, typer.Option(help="Neurons ablated, as counts or shares: 10,100 or 0.05%,0.2%.")
]

HeldOut = Annotated[
    float | None, typer.Option(help="Facts set aside per relation: a count, or a share below 1.")
]

HoldOutTemplates = Annotated[
    int | None,
    typer.Option(help="Templates judged on and not found on; as the data says by default."),
]

Languages = Annotated[
    str | None, typer.Option(help="en,de,… or all; a shipped set comes in English by default.")
]

Names = Annotated[str | None, typer.Option(help="Only these relations: name,name,…")]

Shots = Annotated[int | None, typer.Option(help="Solved examples in front of each prompt.")]

MaxFacts = Annotated[
    int | None, typer.Option(help="Draw this many facts of each relation: a quick look.")
]

DropCopied = Annotated[
    bool | None,
    typer.Option("--drop-copied", help="Leave out answers that stand in their subject."),
]

MaxObjectShare = Annotated[
    float | None, typer.Option(help="Balance: the largest share of a relation's facts per object.")
]

Contrast = Annotated[
    str | None,
    typer.Option(
        "--contrast",
        "--score",
        help="The ranking swept: specific, or background for one relation.",
    ),
]

MinKnown = Annotated[
    int | None, typer.Option(help="Known facts a relation needs on either side; 10 by default.")
]

By = Annotated[
    str | None,
    typer.Option(help="The criterion ranked by: average_precision, auroc, attribution, …"),
]

Draws = Annotated[int | None, typer.Option(help="Draws of the contribution control at each dose.")]

JudgedDraws = Annotated[
    int | None, typer.Option(help="Draws of it at the judged dose, on which the tests rest.")
]

LayerDraws = Annotated[
    int | None, typer.Option(help="Draws of the control matched on layer alone.")
]

MaxCollateral = Annotated[
    float | None,
    typer.Option(help="Judge the largest dose within this KL (nats a token) on neutral text."),
]

Blocks = Annotated[int | None, typer.Option(help="Disjoint blocks ablated alone and jointly.")]

Permutations = Annotated[
    int | None, typer.Option(help="Permutations for the null of the largest AP; 0 for none.")
]

Repeats = Annotated[
    int | None, typer.Option(help="Repeats of each split that measures stability; 0 for none.")
]

Checks = Annotated[
    str | None,
    typer.Option(help="Rankings ablated at the middle dose: unknown,nonsense,background."),
]

CheckDraws = Annotated[int | None, typer.Option(help="Control draws for each check.")]

Seed = Annotated[
    int | None, typer.Option(help="Of the split, the nonsense subjects and the controls.")
]

Pool = Annotated[str | None, typer.Option(help="mean, last, max, or include_first (the paper's).")]

Site = Annotated[str | None, typer.Option(help="post, gate, up or out.")]

Mode = Annotated[str | None, typer.Option(help="zero or mean.")]

Positions = Annotated[str | None, typer.Option(help="no_first, all (the paper's) or last.")]

Nonsense = Annotated[int | None, typer.Option(help="Nonsense subjects per relation.")]

BatchSize = Annotated[int | None, typer.Option(help="Prompts a pass.")]

Memory = Annotated[
    str | None,
    typer.Option(help="What the activations may take in memory (2GB); past it, a mapped file."),
]

Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]

EngineName = Annotated[
    str, typer.Option("--engine", help="Where sets are ablated: local, or ray (docs/cluster.md).")
]

Address = Annotated[
    str | None, typer.Option(help="With --engine ray: a cluster that runs, auto or HOST:PORT.")
]

Workers = Annotated[
    int | None, typer.Option(help="With --engine ray: models held; one per GPU or some cores.")
]

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.")]


def listed(text: str | None) -> list[str] | None:
    """Splits at commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def fields_of(given: dict[str, Any]) -> dict[str, Any]:
    """Turns the command's parameters into fields of `Options`."""
    apart = {"out", "model", "relations", "languages", "names", "preset", "dtype", "device"}
    apart |= {"force_new", "engine", "address", "workers", "memory"}
    options = {name: value for name, value in given.items() if name not in apart}
    for name in ("doses", "checks"):
        if options[name] is not None:
            options[name] = tuple(listed(options[name]) or ())
    options["held_out"] = count_or_share(options["held_out"])
    return options


def count_or_share(value: int | float | None) -> int | float | None:
    """A whole number is a count, and anything else a share."""
    if value is not None and math.isfinite(value) and value == int(value):
        return int(value)
    return value


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
