"""The command line's whole experiment, and its first stage alone: they take the same options."""

from __future__ import annotations

from typing import Annotated

import typer

from relation_neurons.cli.options import (
    Address,
    BatchSize,
    Blocks,
    By,
    CheckDraws,
    Checks,
    Contrast,
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
    Seed,
    Shots,
    Site,
    Workers,
    fields_of,
    interruptible,
    listed,
    load_noted_model,
    say,
)
from relation_neurons.errors import UnknownOptionError

__all__ = ["ablate", "rank", "report", "run"]


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
    contrast: Contrast = None,
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
    from relation_neurons.engines import make_engine
    from relation_neurons.experiment.run import run as run_experiment
    from relation_neurons.models.loading import load_model
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.results.options import make_options
    from relation_neurons.storage.memmap import parse_size
    from relation_neurons.storage.run_folder import require_folder

    require_folder(out)
    make_options(preset, **options)  # what is wrong shows before the model loads
    make_engine(engine, address=address, workers=workers)
    parse_size(memory)
    data = load_relations(relations, languages=languages, names=listed(names))
    loaded = load_model(model, dtype=dtype, device=device)
    with interruptible():
        run_experiment(
            loaded,
            data,
            out=out,
            preset=preset,
            say=say,
            force_new=force_new,
            engine=engine,
            address=address,
            workers=workers,
            memory=memory,
            **options,
        )
    typer.echo(f"report: {out / 'report.html'}")


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
    contrast: Contrast = None,
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
    from relation_neurons.experiment.rank_stage import rank_stage
    from relation_neurons.experiment.run import across_languages, choose_facts
    from relation_neurons.models.loading import load_model
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.results.manifest import make_manifest
    from relation_neurons.results.options import make_options
    from relation_neurons.results.table_store import TableStore
    from relation_neurons.storage.memmap import parse_size
    from relation_neurons.storage.run_folder import locked, open_run_folder, require_folder

    require_folder(out)
    options = make_options(preset, **given)
    parse_size(memory)
    data = choose_facts(
        load_relations(relations, languages=languages, names=listed(names)), options
    )
    options = across_languages(options, data, stated=given)
    loaded = load_model(model, dtype=dtype, device=device)
    with interruptible(), locked(out):
        open_run_folder(out, make_manifest(loaded, data, options))
        _, _, ranking = rank_stage(loaded, data, options, TableStore(out, say, memory=memory))
    typer.echo(f"{ranking!r}\nnext: relation-neurons ablate --out {out}")


def ablate(
    out: Out,
    model: Annotated[str | None, typer.Option(help="The model, if it moved.")] = None,
    device: Device = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
) -> None:
    """The second stage: the ablation sweep, from the folder that `rank` left."""
    from relation_neurons.experiment.ablate_stage import ablate_stage
    from relation_neurons.experiment.rank_stage import read_rank_stage
    from relation_neurons.experiment.report_stage import report_stage
    from relation_neurons.experiment.run import engine_for
    from relation_neurons.results.manifest import require_ranked_by
    from relation_neurons.results.table_store import TableStore
    from relation_neurons.storage.files import read_json
    from relation_neurons.storage.run_folder import locked

    manifest = read_json(out / "manifest.json")
    loaded = load_noted_model(out, manifest["model"], model, device)
    require_ranked_by(out, manifest, loaded)
    store = TableStore(out, say)
    with interruptible(), locked(out):
        options, prompts, recall, ranking = read_rank_stage(manifest, store)
        with engine_for(loaded, engine, store, address=address, workers=workers) as opened:
            ablations = ablate_stage(loaded, prompts, ranking, options, store, opened)
        report_stage(manifest, prompts.frame, recall, ranking, ablations, store)
    typer.echo(f"report: {out / 'report.html'}")


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
    from relation_neurons.experiment.ablate_stage import read_ablate_stage
    from relation_neurons.experiment.rank_stage import read_rank_stage
    from relation_neurons.experiment.report_stage import report_stage
    from relation_neurons.plots.export import require_images
    from relation_neurons.report.page import write_images
    from relation_neurons.results.table_store import TableStore
    from relation_neurons.storage.files import read_json
    from relation_neurons.storage.run_folder import locked

    formats = listed(image_format) or ["png"]
    require_images(formats, theme or "light")  # what is wrong shows before the report is built
    if not images and (image_format or theme):
        raise UnknownOptionError(
            "--image-format and --theme say how images are written; add --images."
        )
    manifest = read_json(out / "manifest.json")
    store = TableStore(out, say)
    with locked(out):
        options, prompts, recall, ranking = read_rank_stage(manifest, store)
        ablations = read_ablate_stage(options, ranking, store)
        results = report_stage(manifest, prompts.frame, recall, ranking, ablations, store)
    if images:
        drawn = write_images(results, out / "figures", formats=formats, theme=theme or "light")
        typer.echo(f"images: {len(drawn)} in {out / 'figures'}")
    typer.echo(f"report: {out / 'report.html'}")
