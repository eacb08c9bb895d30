"""The command line: the experiment, its stages, and what there is to run it on.

Exit code 0, or 2 with one line on bad input; never a traceback for a user's mistake.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from relation_neurons.cli_compare import compare_scores
from relation_neurons.cli_neuron import neuron
from relation_neurons.cli_options import (
    Address,
    BatchSize,
    Blocks,
    By,
    CheckDraws,
    Checks,
    Device,
    Doses,
    Draws,
    DropCopied,
    Dtype,
    EngineName,
    ForceNew,
    HeldOut,
    HoldOutTemplates,
    JudgedDraws,
    Languages,
    LayerDraws,
    MaxCollateral,
    MaxFacts,
    MaxObjectShare,
    Memory,
    MinKnown,
    Mode,
    Model,
    Names,
    Nonsense,
    Out,
    Permutations,
    Pool,
    Positions,
    Preset,
    Relations,
    Repeats,
    Score,
    Seed,
    Shots,
    Site,
    Workers,
    fields_of,
    listed,
)
from relation_neurons.cli_relations import relations_app
from relation_neurons.cli_verify import verify
from relation_neurons.errors import RelationNeuronsError, ResultsError, UnknownOptionError

app = typer.Typer(
    help="Find relation-specific neurons, ablate them, and read what that shows.\n\n"
    "Start with: relation-neurons run --model smollm2-135m --relations demo --out results/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(relations_app, name="relations")
app.command()(compare_scores)
app.command()(neuron)
app.command()(verify)


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
    by: By = None,
    draws: Draws = None,
    judged_draws: JudgedDraws = None,
    layer_draws: LayerDraws = None,
    checks: Checks = None,
    check_draws: CheckDraws = None,
    max_collateral: MaxCollateral = None,
    blocks: Blocks = None,
    permutations: Permutations = None,
    repeats: Repeats = None,
    seed: Seed = None,
    pool: Pool = None,
    site: Site = None,
    mode: Mode = None,
    positions: Positions = None,
    nonsense: Nonsense = None,
    batch_size: BatchSize = None,
    memory: Memory = None,
    dtype: Dtype = None,
    device: Device = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
    force_new: ForceNew = False,
) -> None:
    """Run the whole experiment, from relations to the report.

    On an unfinished folder of the same run it goes on after what is whole; on a finished one it does
    nothing.
    """
    options = fields_of(locals())
    from relation_neurons import experiment
    from relation_neurons.engines import make_engine
    from relation_neurons.folder import require_folder
    from relation_neurons.mapped import parse_size
    from relation_neurons.models import load_model
    from relation_neurons.options import make_options
    from relation_neurons.readers import load_relations

    require_folder(out)
    make_options(preset, **options)  # what is wrong shows before the model loads
    make_engine(engine, address=address, workers=workers)
    parse_size(memory)
    data = load_relations(relations, languages=languages, names=listed(names))
    loaded = load_model(model, dtype=dtype, device=device)
    with _interruptible():
        results = experiment.run(
            loaded,
            data,
            out=out,
            preset=preset,
            say=_say,
            force_new=force_new,
            engine=engine,
            address=address,
            workers=workers,
            memory=memory,
            **options,
        )
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
    by: By = None,
    draws: Draws = None,
    judged_draws: JudgedDraws = None,
    layer_draws: LayerDraws = None,
    checks: Checks = None,
    check_draws: CheckDraws = None,
    max_collateral: MaxCollateral = None,
    blocks: Blocks = None,
    permutations: Permutations = None,
    repeats: Repeats = None,
    seed: Seed = None,
    pool: Pool = None,
    site: Site = None,
    mode: Mode = None,
    positions: Positions = None,
    nonsense: Nonsense = None,
    batch_size: BatchSize = None,
    memory: Memory = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """The first stage: which facts are known, and the neurons of each relation."""
    given = fields_of(locals())
    from relation_neurons import experiment
    from relation_neurons.folder import open_folder, owned, require_folder
    from relation_neurons.mapped import parse_size
    from relation_neurons.models import load_model
    from relation_neurons.options import make_manifest, make_options
    from relation_neurons.readers import load_relations
    from relation_neurons.stages import Stages

    require_folder(out)
    options = make_options(preset, **given)
    parse_size(memory)
    data = experiment.choose_facts(
        load_relations(relations, languages=languages, names=listed(names)), options
    )
    options = experiment.across_languages(options, data, stated=given)
    loaded = load_model(model, dtype=dtype, device=device)
    with _interruptible(), owned(out):
        open_folder(out, make_manifest(loaded, data, options))
        _, _, ranking = experiment.rank_stage(
            loaded, data, options, Stages(out, _say, memory=memory)
        )
    typer.echo(f"{ranking!r}\nnext: relation-neurons ablate --out {out}")


@app.command()
def ablate(
    out: Out,
    model: Annotated[str | None, typer.Option(help="The model, if it moved.")] = None,
    device: Device = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
) -> None:
    """The second stage: the ablation sweep, from the folder that `rank` left."""
    from relation_neurons import experiment
    from relation_neurons.files import read_json
    from relation_neurons.folder import owned
    from relation_neurons.models import load_model, weight_hash
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
    with _interruptible(), owned(out):
        options, prompts, recall, ranking = experiment.read_rank_stage(manifest, stages)
        with experiment.engine_for(
            loaded, engine, stages, address=address, workers=workers
        ) as opened:
            ablations = experiment.ablate_stage(loaded, prompts, ranking, options, stages, opened)
        experiment.report_stage(manifest, prompts.frame, recall, ranking, ablations, stages)
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def report(
    out: Out,
    images: Annotated[
        bool, typer.Option(help="Also draw figures/*.png (needs a browser).")
    ] = False,
    image_format: Annotated[
        str | None,
        typer.Option(help="With --images: png (default), svg or pdf, several with commas."),
    ] = None,
    theme: Annotated[
        str | None, typer.Option(help="With --images: light (default), dark or print.")
    ] = None,
) -> None:
    """The last stage: summary, figures and report, with no model."""
    from relation_neurons import experiment
    from relation_neurons.files import read_json
    from relation_neurons.folder import owned
    from relation_neurons.plot_export import require_images
    from relation_neurons.report import write_images
    from relation_neurons.stages import Stages

    formats = listed(image_format) or ["png"]
    require_images(formats, theme or "light")  # what is wrong shows before the report is built
    if not images and (image_format or theme):
        raise UnknownOptionError(
            "--image-format and --theme say how images are written; add --images."
        )
    manifest = read_json(out / "manifest.json")
    stages = Stages(out, _say)
    with owned(out):
        options, prompts, recall, ranking = experiment.read_rank_stage(manifest, stages)
        ablations = experiment.read_ablate_stage(options, ranking, stages)
        results = experiment.report_stage(
            manifest, prompts.frame, recall, ranking, ablations, stages
        )
    if images:
        drawn = write_images(results, out / "figures", formats=formats, theme=theme or "light")
        typer.echo(f"images: {len(drawn)} in {out / 'figures'}")
    typer.echo(f"report: {out / 'report.html'}")


@app.command()
def models() -> None:
    """What can be loaded, and what is on this machine."""
    from relation_neurons.embedded import EMBEDDED, embedded_parts
    from relation_neurons.lens import WORLD
    from relation_neurons.models import choose_device, known_models
    from relation_neurons.verified import COLUMNS, verified_families

    for name, entry in EMBEDDED.items():
        where = f"here ({entry.file})" if embedded_parts(name) else f"not here; {entry.pip}"
        typer.echo(f"{name}: {where}{f' ({entry.terms})' if entry.terms else ''}")
    others = [name for name in known_models() if name not in EMBEDDED]
    llama = [name for name in others if "llama" in name.lower()]
    typer.echo(f"by name, from the Hugging Face hub ({len(others)}): {', '.join(llama)}, …")
    typer.echo(
        "from disk: a folder in Hugging Face format of a family below, or a .gguf file of Llama "
        "or Gemma 3"
    )
    typer.echo(f"models are: {WORLD.name} ({WORLD.versions})")
    typer.echo("verified against Hugging Face, largest difference of logits and neurons:")
    for row in (COLUMNS, *verified_families()):
        typer.echo(f"  {row[0]:<8} {row[1]:<20} {row[2]:<20} {row[3]}")
    typer.echo(f"device: {choose_device()}")


def main() -> None:
    """Runs the command line; a user's mistake ends in one line and exit code 2."""
    try:
        app()
    except RelationNeuronsError as error:
        typer.echo("error: " + " ".join(str(error).split()), err=True)
        sys.exit(2)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Says what Ctrl-C leaves."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on after what is whole", err=True)
        raise typer.Exit(130) from None


def _say(line: str) -> None:
    typer.echo(line)


if __name__ == "__main__":
    main()
