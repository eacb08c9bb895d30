"""The options of the commands: their types and help, and the Python values they stand for."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from relation_neurons.errors import ResultsError

if TYPE_CHECKING:  # importing them takes seconds, which --help should not
    from relation_neurons.backends.base import HookedModel
    from relation_neurons.experiment.opening import RunRequest

__all__ = ["RunArguments", "interruptible", "load_noted_model", "log", "takes_run_arguments"]

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
    bool, typer.Option("--force-new", help="Move a folder that is there aside and start again.")
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
        help="The contrast swept: specific, or background for one relation; --score is its earlier name.",
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

HomeDraws = Annotated[
    int | None,
    typer.Option(
        help="Most draws of it on the relation's own facts, drawn until the answer is clear; 0 for none."
    ),
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

OverlapDeals = Annotated[
    int | None,
    typer.Option(help="Deals of the prompts' roles for the null of overlap; 0 for none."),
]

Repeats = Annotated[
    int | None, typer.Option(help="Repeats of each split that measures stability; 0 for none.")
]

Checks = Annotated[
    str | None,
    typer.Option(help="Rankings ablated at the judged dose: unknown,nonsense,background."),
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


def count_or_share(value: int | float | None) -> int | float | None:
    """A whole number is a count, and anything else a share."""
    if value is not None and math.isfinite(value) and value == int(value):
        return int(value)
    return value


@dataclasses.dataclass(frozen=True)
class RunArguments:
    """The options that `run` and `rank` share, in the order of their help."""

    out: Out
    model: Model = "smollm2-135m"
    relations: Relations = "demo"
    preset: Preset = "default"
    doses: Doses = None
    held_out: HeldOut = None
    hold_out_templates: HoldOutTemplates = None
    languages: Languages = None
    names: Names = None
    shots: Shots = None
    max_facts: MaxFacts = None
    drop_copied: DropCopied = None
    max_object_share: MaxObjectShare = None
    contrast: Contrast = None
    min_known: MinKnown = None
    by: By = None
    draws: Draws = None
    judged_draws: JudgedDraws = None
    home_draws: HomeDraws = None
    layer_draws: LayerDraws = None
    checks: Checks = None
    check_draws: CheckDraws = None
    max_collateral: MaxCollateral = None
    blocks: Blocks = None
    permutations: Permutations = None
    overlap_deals: OverlapDeals = None
    repeats: Repeats = None
    seed: Seed = None
    pool: Pool = None
    site: Site = None
    mode: Mode = None
    positions: Positions = None
    nonsense: Nonsense = None
    batch_size: BatchSize = None
    memory: Memory = None
    dtype: Dtype = None
    device: Device = None

    def request(self) -> RunRequest:
        """Checks what shows without a model, and reads the relations."""
        from relation_neurons.experiment.opening import request_run

        given = dataclasses.asdict(self)
        for name in ("model", "dtype", "device"):
            del given[name]
        for name in ("doses", "checks"):
            if given[name] is not None:
                given[name] = tuple(listed(given[name]) or ())
        given["held_out"] = count_or_share(self.held_out)
        apart = ("preset", "out", "memory", "languages", "names")
        how = {name: given.pop(name) for name in apart}
        return request_run(given.pop("relations"), given, **{**how, "names": listed(self.names)})

    def load(self) -> HookedModel:
        """Loads the model."""
        from relation_neurons.models.loading import load_model

        return load_model(self.model, dtype=self.dtype, device=self.device)


def takes_run_arguments(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of `RunArguments`, followed by its own keyword-only ones."""
    hints = get_type_hints(RunArguments, include_extras=True)
    fields = dataclasses.fields(RunArguments)
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    shared = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty
            if field.default is dataclasses.MISSING
            else field.default,
            annotation=hints[field.name],
        )
        for field in fields
    ]
    names = [field.name for field in fields]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        arguments = RunArguments(**{name: given.pop(name) for name in names if name in given})
        command(arguments, **given)

    parameters = [*shared, *own]
    call.__dict__.pop("__wrapped__", None)  # typer would read that one's options
    call.__dict__["__signature__"] = inspect.Signature(parameters, return_annotation=None)
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def load_noted_model(
    out: Path, known: dict[str, Any], model: str | None, device: str | None
) -> HookedModel:
    """Loads the model that a manifest names.

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
    """Turns Ctrl-C into one line that says how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command continues after the finished parts", err=True)
        raise typer.Exit(130) from None


def log(line: str) -> None:
    """Prints a line that a stage logs."""
    typer.echo(line)
