"""The command `compare-criteria`: criteria judged by one held-out ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from relation_neurons.cli.options import (
    BatchSize,
    Device,
    Dtype,
    HeldOut,
    Languages,
    MinKnown,
    Model,
    Names,
    Relations,
    count_or_share,
    listed,
    log,
)

__all__ = ["compare_criteria"]


def compare_criteria(
    out: Annotated[Path, typer.Option(help="The folder for the comparison.")],
    model: Model = "smollm2-135m",
    relations: Relations = "demo",
    by: Annotated[
        str | None, typer.Option(help="Criteria: average_precision,auroc,…; all by default.")
    ] = None,
    sites: Annotated[
        str, typer.Option(help="All criteria at the first of them, average precision at the rest.")
    ] = "post,gate,up,out",
    bottom: Annotated[
        bool, typer.Option(help="Also ablate the neurons with the lowest average precision.")
    ] = True,
    dose: Annotated[
        str, typer.Option(help="Neurons ablated: a count, or a share of the site's.")
    ] = "0.2%",
    contrast: Annotated[
        str, typer.Option("--contrast", "--score", help="The ranking compared: specific, …")
    ] = "specific",
    quantity: Annotated[str, typer.Option(help="Judged by correct or by margin.")] = "correct",
    held_out: HeldOut = None,
    languages: Languages = None,
    names: Names = None,
    min_known: MinKnown = None,
    draws: Annotated[int, typer.Option(help="Draws of the control beside each set.")] = 2,
    seed: Annotated[
        int, typer.Option(help="Of the split, the nonsense subjects and the controls.")
    ] = 0,
    batch_size: BatchSize = None,
    dtype: Dtype = None,
    device: Device = None,
) -> None:
    """Compare criteria, sites and ends by what ablating their sets does to held-out facts."""
    from functools import partial

    from relation_neurons.experiment import comparison
    from relation_neurons.experiment.opening import open_comparison_folder, open_run, request_run
    from relation_neurons.experiment.rank_stage import planned_prompts
    from relation_neurons.inference.recall import measure_recall
    from relation_neurons.models.loading import load_model
    from relation_neurons.ranking.criteria import CRITERIA
    from relation_neurons.results.table_store import TableStore
    from relation_neurons.storage.files import write_table

    criteria, places = listed(by) or list(CRITERIA), listed(sites) or []
    first = comparison.plan_contenders(criteria, places, bottom=bottom, contrast=contrast)[0]
    request = request_run(
        relations,
        {
            "doses": (dose,),
            "held_out": count_or_share(held_out),
            "min_known": min_known,
            "draws": draws,
            "contrast": contrast,
            "checks": (),
            "seed": seed,
            "batch_size": batch_size,
        },
        out=out,
        languages=languages,
        names=listed(names),
    )
    options = request.options
    loaded = load_model(model, dtype=dtype, device=device)
    store = TableStore(out, log)
    chosen = {"by": criteria, "sites": places, "bottom": bottom, "quantity": quantity}
    open_folder = partial(open_comparison_folder, comparison=chosen)
    with open_run(loaded, request, store, sites=places, open_folder=open_folder):
        prompts = planned_prompts(loaded, request.relations, options)
        recall = store.get_or_make(
            "parts/recall", lambda: measure_recall(loaded, prompts, batch_size=options.batch_size)
        )
        found = comparison.compare_criteria(
            loaded,
            prompts,
            recall,
            by=criteria,
            sites=places,
            bottom=bottom,
            dose=dose,
            contrast=contrast,
            control_draws=draws,
            quantity=quantity,
            pool=options.pool,
            mode=options.mode,
            positions=options.positions,
            min_known=options.min_known,
            batch_size=options.batch_size,
            seed=seed,
            store=store,
        )
        for name, table in (
            ("comparison", found.table),
            ("comparison_standings", found.standings),
            ("comparison_sets", found.sets),
            ("comparison_effects", found.effects),
        ):
            write_table(out / f"{name}.parquet", table)
    _show(found.standings, quantity, f"{first.by} ({first.site}, {first.end})")
    typer.echo(f"table: {out / 'comparison.parquet'}")


def _show(standings: pd.DataFrame, quantity: str, first: str) -> None:
    """Prints who wins, the most specific first."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        title=f"Specificity ({quantity}, 95% intervals over facts; negative is specific harm)",
        caption=f"against first: minus the specificity of {first}, on the same facts",
    )
    for name in (
        "",
        "by",
        "site",
        "end",
        "dose",
        "home",
        "control",
        "specificity",
        "against first",
    ):
        shown.add_column(name, justify="left" if name in ("by", "site", "end") else "right")
    for row in standings.itertuples():
        shown.add_row(
            str(row.place),
            row.by,
            row.site,
            row.end,
            str(row.dose),
            f"{row.home:+.3f}",
            f"{row.control:+.3f}",
            f"{row.specificity:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
            ""
            if row.against_first_low != row.against_first_low  # the first itself
            else f"{row.against_first:+.3f} [{row.against_first_low:+.3f}, {row.against_first_high:+.3f}]",
        )
    console = Console()
    Console(width=max(console.width, 130) if not console.is_terminal else None).print(shown)
