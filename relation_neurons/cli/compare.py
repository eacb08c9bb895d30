"""The command line's comparison of criteria, judged by one held-out ablation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
    say,
)
from relation_neurons.errors import ResultsError

__all__ = ["compare_criteria"]

_MANIFEST = "comparison.json"


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
    from relation_neurons.experiment import comparison
    from relation_neurons.experiment.run import choose_facts
    from relation_neurons.inference.recall import measure_recall
    from relation_neurons.models.loading import load_model
    from relation_neurons.ranking.criteria import CRITERIA
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.relations.prompts import make_prompts
    from relation_neurons.results.manifest import make_manifest
    from relation_neurons.results.options import make_options
    from relation_neurons.results.table_store import TableStore
    from relation_neurons.storage.files import write_table
    from relation_neurons.storage.run_folder import require_folder

    require_folder(out)
    criteria, places = listed(by) or list(CRITERIA), listed(sites) or []
    first = comparison.plan_contenders(criteria, places, bottom=bottom, contrast=contrast)[0]
    options = make_options(
        doses=(dose,),
        held_out=count_or_share(held_out),
        min_known=min_known,
        draws=draws,
        contrast=contrast,
        checks=(),
        seed=seed,
        batch_size=batch_size,
    )
    data = choose_facts(
        load_relations(relations, languages=languages, names=listed(names)), options
    )
    loaded = load_model(model, dtype=dtype, device=device)
    store = TableStore(out, say)
    manifest = make_manifest(loaded, data, options)
    chosen = {"by": criteria, "sites": places, "bottom": bottom, "quantity": quantity}
    _open(out, {**manifest, "comparison": chosen})
    prompts = make_prompts(
        data,
        loaded.tokenizer,
        held_out=options.held_out,
        hold_out_templates=options.hold_out_templates,
        nonsense=options.nonsense,
        seed=seed,
    )
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


def _open(folder: Path, manifest: dict[str, Any]) -> None:
    """Starts a comparison, or goes on with one of the same options; criteria and sites may be added.

    Raises:
        ResultsError: the folder holds a comparison with other options (pitfall 19).
    """
    from relation_neurons.storage.files import read_json, write_json

    path = folder / _MANIFEST
    if path.exists():
        there, here = (
            {**part, **part.get("options", {})}
            for part in (read_json(path), json.loads(json.dumps(manifest)))
        )
        for name in sorted(({*there, *here}) - {"comparison", "options"}):
            if there.get(name) != here.get(name):
                raise ResultsError(
                    f"{folder} holds a comparison with another {name}"
                    f"{_shown(there.get(name), here.get(name))}. Give another --out, or move that folder "
                    "away."
                )
    elif (folder / "parts").exists():
        raise ResultsError(
            f"{folder} holds parts of a comparison and no {_MANIFEST} that says of which. Give another "
            "--out, or delete the parts."
        )
    write_json(path, manifest)


def _shown(there: Any, here: Any) -> str:
    """Says both values where they are short."""
    long = isinstance(there, (dict, list)) and len(there) > 3
    return "" if long else f" ({there!r} there, {here!r} here)"


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
            f"{row.against_first:+.3f} [{row.against_first_low:+.3f}, {row.against_first_high:+.3f}]",
        )
    console = Console()
    Console(width=max(console.width, 130) if not console.is_terminal else None).print(shown)
