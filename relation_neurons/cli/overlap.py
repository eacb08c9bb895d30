"""The command line draws the overlap of one's own relations: a heatmap, with no ablation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from relation_neurons.cli.options import (
    HeldOut,
    Languages,
    MinKnown,
    Model,
    Seed,
    Shots,
)
from relation_neurons.errors import ResultsError

if TYPE_CHECKING:  # importing it takes seconds, which --help should not
    import pandas as pd

__all__ = ["overlap"]


def overlap(
    source: str,
    model: Model = "smollm2-135m",
    out: Annotated[
        Path, typer.Option(help="The page to write; none that is there is replaced.")
    ] = Path("overlap.html"),
    dose: Annotated[str, typer.Option(help="Neurons a relation, as a count or a share.")] = "0.2%",
    languages: Languages = None,
    held_out: HeldOut = None,
    shots: Shots = None,
    min_known: MinKnown = None,
    seed: Seed = None,
) -> None:
    """Draw how many neurons relations share: rank them against neutral prompts, and make a heatmap.

    Says what the model knows of each relation, which are left out and why, the counts that the heatmap
    shows beside those of dealt prompts (chance), and how much of each set is found again from other facts
    and wordings: where that is little, an overlap means little. Exit code 1 where fewer than two relations
    are ranked; then nothing is written.
    """
    from relation_neurons.cli.known import ask_and_say, asking
    from relation_neurons.neurons import check_doses, resolve_doses

    if out.suffix.lower() != ".html":
        raise ResultsError(f"{out} is not a page; expected a file that ends in .html.")
    if out.exists():
        raise ResultsError(f"{out} is there already. Give another name with --out.")
    if not out.parent.is_dir():
        raise ResultsError(
            f"{out.parent} is not a folder. Create it, or give another place with --out."
        )
    check_doses([dose])
    asked = asking(model, held_out=held_out, shots=shots, min_known=min_known, seed=seed)
    known = ask_and_say(model, source, languages, asked)
    if known.ranked < 2:
        typer.echo("a heatmap takes two relations; nothing is written")
        raise typer.Exit(1)
    from relation_neurons import plots
    from relation_neurons.activations.collect import collect_activations
    from relation_neurons.analysis.versatility import overlap_matrix
    from relation_neurons.ranking.overlap_null import overlap_null
    from relation_neurons.ranking.rank import rank_neurons
    from relation_neurons.ranking.stability import ranking_stability, stability_summary
    from relation_neurons.results.options import make_options

    options = make_options(**asked)
    table = collect_activations(known.model, known.prompts.detection)
    ranking = rank_neurons(table, known.recall, min_known=options.min_known)
    (count,) = resolve_doses([dose], len(ranking.neurons))
    shared: dict[str, Any] = {
        "contrasts": ("background",),
        "min_known": options.min_known,
        "seed": options.seed,
    }
    null = overlap_null(
        table, known.recall, keep=count, deals=options.overlap_deals, order=options.order, **shared
    )
    matrix = overlap_matrix(ranking, dose=count, null=null)
    found = ranking_stability(table, known.recall, dose=count, **shared)
    for line in (*_shared(matrix, count), *_stable(stability_summary(found))):
        typer.echo(line)
    if ranking.shots:
        typer.echo(
            "asked behind solved examples: relations share neurons for following these, too; compare "
            "with --shots 0 where the model knows enough without"
        )
    try:
        plots.overlap(matrix).write_html(out)
    except OSError as error:
        raise ResultsError(f"{out} cannot be written: {error}.") from error
    typer.echo(f"written: {out}")


def _shared(matrix: pd.DataFrame, dose: int) -> list[str]:
    """What the heatmap shows, each pair once."""
    from relation_neurons.plots.style import named

    cells = matrix.assign(row=named(matrix), column=named(matrix, "other", "other_language"))
    order = {name: place for place, name in enumerate(dict.fromkeys(cells["row"]))}
    lines = [f"neurons that two relations share, of {dose:,} each:"]
    for row in cells.itertuples():
        if order[row.row] < order[row.column]:
            lines.append(
                f"  {row.row} and {row.column}: {row.shared} (by chance {row.expected:.2g}, "
                f"p = {row.p_value:.2g})"
            )
    total = matrix.attrs
    lines.append(
        f"  all pairs: {total['shared_total']:,.0f} (by chance {total['expected_total']:.3g}, "
        f"p = {total['p_total']:.2g}; chance is {total['deals']} deals of the prompts' roles)"
    )
    return lines


def _stable(summary: pd.DataFrame) -> list[str]:
    """How much of each set is found again."""
    from relation_neurons.plots.style import named

    what = {
        "halves": "the other half of the facts",
        "templates": "the other wording",
    }
    shown = summary.assign(label=named(summary))
    lines = [
        "share of each set that is found again (from half of the facts where a half has enough):"
    ]
    for label, rows in shown.groupby("label", sort=False):
        said = [
            f"{row.share:.0%} from {what[row.what]}"
            for row in rows.itertuples()
            if row.what in what and row.comparisons
        ]
        lines.append(f"  {label}: {', '.join(said) or 'too few facts to say'}")
    return lines
