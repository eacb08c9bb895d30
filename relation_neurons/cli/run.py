"""The commands of the experiment: all of it (`run`), or its stages `rank`, `ablate` and `report`."""

from __future__ import annotations

from typing import Annotated

import typer

from relation_neurons.cli.options import (
    Address,
    Device,
    EngineName,
    ForceNew,
    Out,
    RunArguments,
    Workers,
    interruptible,
    listed,
    load_noted_model,
    log,
    takes_run_arguments,
)
from relation_neurons.errors import UnknownOptionError

__all__ = ["ablate", "rank", "report", "run"]


@takes_run_arguments
def run(
    given: RunArguments,
    *,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
    force_new: ForceNew = False,
) -> None:
    """Run the whole experiment, from relations to the report.

    On an unfinished folder of the same run it goes on after what is whole; on a finished one it does
    nothing.
    """
    from relation_neurons.engines import make_engine
    from relation_neurons.experiment.run import run_request
    from relation_neurons.results.table_store import TableStore

    make_engine(engine, address=address, workers=workers)  # a mistake shows before the model loads
    request = given.request()
    loaded = given.load()
    with interruptible():
        run_request(
            loaded,
            request,
            TableStore(given.out, log, memory=given.memory),
            force_new=force_new,
            engine=engine,
            address=address,
            workers=workers,
        )
    typer.echo(f"report: {given.out / 'report.html'}")


@takes_run_arguments
def rank(given: RunArguments) -> None:
    """The first stage: which facts are known, and the neurons of each relation."""
    from relation_neurons.experiment.opening import open_run
    from relation_neurons.experiment.rank_stage import rank_stage
    from relation_neurons.results.table_store import TableStore

    request = given.request()
    loaded = given.load()
    store = TableStore(given.out, log, memory=given.memory)
    with interruptible(), open_run(loaded, request, store):
        _, _, ranking = rank_stage(loaded, request.relations, request.options, store)
    typer.echo(f"{ranking!r}\nnext: relation-neurons ablate --out {given.out}")


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
    store = TableStore(out, log)
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
    require_images(formats, theme or "light")  # a mistake shows before the report is built
    if not images and (image_format or theme):
        raise UnknownOptionError(
            "--image-format and --theme say how images are written; add --images."
        )
    manifest = read_json(out / "manifest.json")
    store = TableStore(out, log)
    with locked(out):
        options, prompts, recall, ranking = read_rank_stage(manifest, store)
        ablations = read_ablate_stage(options, ranking, store)
        results = report_stage(manifest, prompts.frame, recall, ranking, ablations, store)
    if images:
        drawn = write_images(results, out / "figures", formats=formats, theme=theme or "light")
        typer.echo(f"images: {len(drawn)} in {out / 'figures'}")
    typer.echo(f"report: {out / 'report.html'}")
