"""The command line: the experiment, its stages, and what there is to run it on.

Exit code 0, or 2 with one line on bad input; never a traceback for a user's mistake.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from relation_neurons.cli_relations import relations_app
from relation_neurons.errors import RelationNeuronsError, ResultsError

app = typer.Typer(
    help="Find relation-specific neurons, ablate them, and read what that shows.\n\n"
    "Start with: relation-neurons run --model smollm2-135m --relations demo --out results/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(relations_app, name="relations")

Model = Annotated[
    str, typer.Option(help="A name (see `models`), a Hugging Face folder or a .gguf file.")
]
Relations = Annotated[
    str,
    typer.Option(help="A shipped set or relation (see `relations list`), lre, a file or a folder."),
]
Out = Annotated[Path, typer.Option(help="The results folder.")]
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
Score = Annotated[
    str | None, typer.Option(help="The ranking swept: specific, or background for one relation.")
]
MinKnown = Annotated[
    int | None, typer.Option(help="Known facts a relation needs on either side; 10 by default.")
]
Draws = Annotated[int | None, typer.Option(help="Draws of each control.")]
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
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.")]


@app.command()
def run(
    out: Out,
    model: Model = "smollm2-135m",
    relations: Relations = "demo",
    preset: Preset = "default",
    doses: Doses = None,
    held_out: HeldOut = None,
    hold_out_templates: HoldOutTemplates = None,
    languages: Languages = None,
    names: Names = None,
    shots: Shots = None,
    max_facts: MaxFacts = None,
    drop_copied: DropCopied = None,
    max_object_share: MaxObjectShare = None,
    score: Score = None,
    min_known: MinKnown = None,
    draws: Draws = None,
    checks: Checks = None,
    check_draws: CheckDraws = None,
    seed: Seed = None,
    pool: Pool = None,
    site: Site = None,
    mode: Mode = None,
    positions: Positions = None,
    nonsense: Nonsense = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Run the whole experiment, from relations to the report."""
    options = _options(locals())
    from relation_neurons import experiment
    from relation_neurons.models import load_model
    from relation_neurons.options import make_options
    from relation_neurons.readers import load_relations
    from relation_neurons.results import require_folder

    require_folder(out)
    make_options(preset, **options)  # what is wrong shows before the model loads
    data = load_relations(relations, languages=languages, names=_listed(names))
    loaded = load_model(model, dtype=dtype, device=device)
    results = experiment.run(loaded, data, out=out, preset=preset, say=_say, **options)
    for name, reason in results.ranking.left_out.items():
        _say(f"left out: {name}, {reason}")
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def rank(
    out: Out,
    model: Model = "smollm2-135m",
    relations: Relations = "demo",
    preset: Preset = "default",
    doses: Doses = None,
    held_out: HeldOut = None,
    hold_out_templates: HoldOutTemplates = None,
    languages: Languages = None,
    names: Names = None,
    shots: Shots = None,
    max_facts: MaxFacts = None,
    drop_copied: DropCopied = None,
    max_object_share: MaxObjectShare = None,
    score: Score = None,
    min_known: MinKnown = None,
    draws: Draws = None,
    checks: Checks = None,
    check_draws: CheckDraws = None,
    seed: Seed = None,
    pool: Pool = None,
    site: Site = None,
    mode: Mode = None,
    positions: Positions = None,
    nonsense: Nonsense = None,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """The first stage: which facts are known, and the neurons of each relation."""
    given = _options(locals())
    from relation_neurons import experiment
    from relation_neurons.models import load_model
    from relation_neurons.options import make_manifest, make_options
    from relation_neurons.readers import load_relations
    from relation_neurons.results import open_folder, require_folder
    from relation_neurons.stages import Stages

    require_folder(out)
    options = make_options(preset, **given)
    data = experiment.choose_facts(
        load_relations(relations, languages=languages, names=_listed(names)), options
    )
    options = experiment.across_languages(options, data, stated=given)
    loaded = load_model(model, dtype=dtype, device=device)
    open_folder(out, make_manifest(loaded, data, options))
    _, _, ranking = experiment.rank_stage(loaded, data, options, Stages(out, _say))
    typer.echo(f"{ranking!r}\nnext: relation-neurons ablate --out {out}")


@app.command()
def ablate(
    out: Out,
    model: Annotated[str | None, typer.Option(help="The model, if it moved.")] = None,
    device: Device = None,
) -> None:
    """The second stage: the ablation sweep, from the folder that `rank` left."""
    from relation_neurons import experiment
    from relation_neurons.models import load_model, weight_hash
    from relation_neurons.results import read_json
    from relation_neurons.stages import Stages

    manifest = read_json(out / "manifest.json")
    known = manifest["model"]
    loaded = load_model(
        model or known["name"], dtype=known["dtype"], device=device or known["device"]
    )
    if weight_hash(loaded) != known["weight_hash"]:
        raise ResultsError(
            f"{out} was ranked on another model than {model or known['name']}: the weights differ."
        )
    stages = Stages(out, _say)
    options, prompts, recall, ranking = experiment.read_rank_stage(manifest, stages)
    effects = experiment.ablate_stage(loaded, prompts, ranking, options, stages)
    experiment.report_stage(manifest, prompts.frame, recall, ranking, effects, stages)
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def report(
    out: Out,
    images: Annotated[
        bool, typer.Option(help="Also draw figures/*.png (needs a browser).")
    ] = False,
) -> None:
    """The last stage: summary, figures and report, with no model."""
    from relation_neurons import experiment
    from relation_neurons.report import write_images
    from relation_neurons.results import read_json
    from relation_neurons.stages import Stages

    manifest = read_json(out / "manifest.json")
    stages = Stages(out, _say)
    _, prompts, recall, ranking = experiment.read_rank_stage(manifest, stages)
    results = experiment.report_stage(
        manifest, prompts.frame, recall, ranking, stages.read("effects"), stages
    )
    if images:
        typer.echo(f"images: {len(write_images(results, out / 'figures'))} in {out / 'figures'}")
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def models() -> None:
    """What can be loaded, and what is on this machine."""
    from relation_neurons import checkpoints
    from relation_neurons.models import choose_device, known_models

    for name in checkpoints.EMBEDDED:
        found = checkpoints.embedded_checkpoint(name, convert=False)
        where = (
            f"here ({found.name})"
            if isinstance(found, Path)
            else f"not here; {checkpoints.EMBEDDED[name]['pip']}"
        )
        typer.echo(f"{name}: {where}")
    others = [name for name in known_models() if name not in checkpoints.EMBEDDED]
    llama = [name for name in others if "llama" in name.lower()]
    typer.echo(f"by name, from the Hugging Face hub ({len(others)}): {', '.join(llama)}, …")
    typer.echo("from disk: a folder in Hugging Face format or a .gguf file, Llama architecture")
    typer.echo(f"device: {choose_device()}")


def main() -> None:
    """Runs the command line; a user's mistake ends in one line and exit code 2."""
    try:
        app()
    except RelationNeuronsError as error:
        typer.echo("error: " + " ".join(str(error).split()), err=True)
        sys.exit(2)


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _say(line: str) -> None:
    typer.echo(line)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Turns the command's parameters into fields of `Options`."""
    apart = {"out", "model", "relations", "languages", "names", "preset", "dtype", "device"}
    options = {name: value for name, value in given.items() if name not in apart}
    for name in ("doses", "checks"):
        if options[name] is not None:
            options[name] = tuple(_listed(options[name]) or ())
    held_out = options["held_out"]
    if held_out is not None and math.isfinite(held_out) and held_out == int(held_out):
        options["held_out"] = int(held_out)
    return options


if __name__ == "__main__":
    main()
