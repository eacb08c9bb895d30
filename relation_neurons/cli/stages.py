"""The command line's later stages, each from the folder that the one before it left."""

from __future__ import annotations

from typing import Annotated

import typer

from relation_neurons.cli.options import Address, Device, EngineName, Out, Workers, listed
from relation_neurons.cli.shared import interruptible, load_noted_model, say
from relation_neurons.errors import UnknownOptionError

__all__ = ["ablate", "report"]


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
    from relation_neurons.results.table_store import Stages
    from relation_neurons.storage.files import read_json
    from relation_neurons.storage.run_folder import owned

    manifest = read_json(out / "manifest.json")
    loaded = load_noted_model(out, manifest["model"], model, device)
    require_ranked_by(out, manifest, loaded)
    stages = Stages(out, say)
    with interruptible(), owned(out):
        options, prompts, recall, ranking = read_rank_stage(manifest, stages)
        with engine_for(loaded, engine, stages, address=address, workers=workers) as opened:
            ablations = ablate_stage(loaded, prompts, ranking, options, stages, opened)
        report_stage(manifest, prompts.frame, recall, ranking, ablations, stages)
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
    from relation_neurons.results.table_store import Stages
    from relation_neurons.storage.files import read_json
    from relation_neurons.storage.run_folder import owned

    formats = listed(image_format) or ["png"]
    require_images(formats, theme or "light")  # what is wrong shows before the report is built
    if not images and (image_format or theme):
        raise UnknownOptionError(
            "--image-format and --theme say how images are written; add --images."
        )
    manifest = read_json(out / "manifest.json")
    stages = Stages(out, say)
    with owned(out):
        options, prompts, recall, ranking = read_rank_stage(manifest, stages)
        ablations = read_ablate_stage(options, ranking, stages)
        results = report_stage(manifest, prompts.frame, recall, ranking, ablations, stages)
    if images:
        drawn = write_images(results, out / "figures", formats=formats, theme=theme or "light")
        typer.echo(f"images: {len(drawn)} in {out / 'figures'}")
    typer.echo(f"report: {out / 'report.html'}")
