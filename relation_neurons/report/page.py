"""The report: one HTML page that opens offline, built from a finished run's tables.

The page states the answer first, then shows each property with its figure, how to read it, and what
it cannot show. Everything from data is escaped: by Jinja in the markup, by `\\u003c` in the JSON.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from relation_neurons import plots
from relation_neurons.analysis.cell_tests import claim_families
from relation_neurons.analysis.cumulativity import dose_curves
from relation_neurons.analysis.interference import interference_matrix, specificity
from relation_neurons.analysis.versatility import (
    overlap_matrix,
    overlap_total,
    set_intersections,
    transfer_matrix,
)
from relation_neurons.formatting import number
from relation_neurons.notebook_html import make_environment
from relation_neurons.plots.claims import claim_sentences
from relation_neurons.report import tables as report_tables
from relation_neurons.report.sentences import answer
from relation_neurons.report.tables import fact_rows, flip_rows, home_counts, neuron_rows
from relation_neurons.results.results import Results

__all__ = ["build_report", "make_figures", "write_images"]

_LISTED = 12
"""Most relations for which an overlap keeps the run's order; more are clustered."""
_WIDE = 700
_DOTS = ("headline", "specificity", "scores", "stability", "stability_specific")


def build_report(
    results: Results,
    figures: dict[str, go.Figure] | None = None,
    matrix: pd.DataFrame | None = None,
) -> str:
    """Builds the report of a run.

    Args:
        results: from `run` or `load_results`.
        figures: those of `make_figures`, if they are drawn already; the page resizes them.
        matrix: from `interference_matrix` at the judged dose, if it is computed already.

    Returns:
        A self-contained HTML page that includes plotly.js once.
    """
    summary, manifest = results.summary, results.manifest
    dose, contrast = summary["dose"], manifest["options"].get("score", "specific")
    if matrix is None:
        matrix = interference_matrix(
            results.effects,
            results.home_draws,
            dose=dose,
            contrast=contrast,
            seed=manifest.get("seed", 0),
        )
    drawn = make_figures(results, matrix) if figures is None else figures
    environment = make_environment()
    environment.filters.update(report_tables.FILTERS, number=number)
    environment.tests["judged"] = pd.notna
    page = environment.get_template("report.html.j2")
    return page.render(
        answer=answer(results),
        dose=dose,
        facts=summary["relations"],
        figures={name: _embedded(name, fig) for name, fig in drawn.items()},
        languages=summary["languages"],
        left_out=summary.get("left_out") or results.ranking.left_out,
        manifest=manifest,
        manifest_text=json.dumps(manifest, indent=2, ensure_ascii=False, default=str),
        claimed=claim_sentences(claim_families(matrix)),
        model=manifest["model"],
        neurons=neuron_rows(results, contrast, dose),
        by_name=fact_rows(results, dose, contrast),
        flips=flip_rows(results, dose, contrast),
        home_counts=home_counts(results, dose, contrast),
        no_overlap_null=_no_overlap_null(results),
        overlap_dose=summary.get("overlap_dose", dose),
        prompts_asked=int((results.prompts["kind"] == "fact").sum()),
        prompts_judged=results.effects["prompt_id"].nunique(),
        plotlyjs=Markup(get_plotlyjs()),
        contrast=contrast,
        several=len(summary["languages"]) > 1,
        **report_tables.tables(results),
        unseen=bool(results.effects["template_held_out"].all()),
    )


def make_figures(results: Results, matrix: pd.DataFrame | None = None) -> dict[str, go.Figure]:
    """Draws every figure of a run, by name; figures that need what was not run are left out."""
    summary, ranking, effects = results.summary, results.ranking, results.effects
    dose, contrast = summary["dose"], results.manifest["options"].get("score", "specific")
    seed = results.manifest.get("seed", 0)
    if matrix is None:
        matrix = interference_matrix(
            effects, results.home_draws, dose=dose, contrast=contrast, seed=seed
        )
    specific = specificity(matrix)
    shared = summary.get("overlap_dose", dose)
    made: dict[str, go.Figure] = {
        "headline": plots.headline(pd.DataFrame(summary["headline"]), dose=dose),
        "cumulativity": plots.dose_curves(dose_curves(effects, contrast=contrast)),
        "interference": plots.interference(matrix),
        "layers": plots.layers(ranking.frame, ranking.neurons, contrast=contrast, dose=shared),
    }
    if len(specific) > 1:
        made["specificity"] = plots.specificity(specific)
    for name in ("background", "specific"):
        if (ranking.frame["score"] == name).any():
            counts = overlap_matrix(ranking, dose=shared, contrast=name)
            order = "clustered" if len(ranking.labels(name)) > _LISTED else "given"
            made[f"overlap_{name}"] = plots.overlap(counts, order=order)
    if (ranking.frame["score"] == "background").any():
        combined = set_intersections(ranking, dose=shared)
        if (combined["degree"] > 2).any():
            made["intersections"] = plots.intersections(combined)
    swept = effects[effects["kind"] == "control_contribution"]
    for name in ("background", "specific"):
        if effects["language"].nunique() > 1 and (swept["score"] == name).any():
            made[f"transfer_{name}"] = plots.transfer(
                transfer_matrix(effects, dose=dose, contrast=name, seed=seed), contrast=name
            )
    if len(results.null) and (results.null["score"] == contrast).any():
        made["spectrum"] = plots.spectrum(ranking.frame, results.null, contrast=contrast)
    if len(results.stability):
        for name, shown in (("stability", "background"), ("stability_specific", "specific")):
            if (results.stability["score"] == shown).any():
                made[name] = plots.stability(results.stability, contrast=shown)
    compared = pd.DataFrame(summary.get("scores") or [])
    if len(compared) and compared["score"].nunique() > 1:
        made["scores"] = plots.score_comparison(compared.fillna(float("nan")), dose=dose)
    return made


def write_images(
    results: Results, folder: Path, *, formats: Sequence[str] = ("png",), theme: str = "light"
) -> list[Path]:
    """Writes every figure as an image, a PNG at twice its size; see `plots.save_all`.

    Raises:
        ResultsError: Kaleido or a browser for it is missing.
    """
    return plots.save_all(make_figures(results), folder, formats=formats, theme=theme)


def _embedded(name: str, fig: go.Figure) -> dict[str, Any]:
    """Returns a figure as JSON that is safe in a script, with its title and subtitle as a caption."""
    title = fig.layout.title
    caption, note = (
        html.unescape(text.replace("<br>", " ").replace("<b>", "").replace("</b>", ""))
        for text in (title.text or "", title.subtitle.text or "")
    )
    above = 14 + (36 if fig.layout.showlegend else 0) + (24 if name == "cumulativity" else 0)
    height = fig.layout.height - fig.layout.margin.t + above
    wide = _WIDE if name in _DOTS else fig.layout.width
    fig.update_layout(title=None, width=None, height=height, autosize=True, margin_t=above)
    data = fig.to_json().replace("<", "\\u003c")
    narrow = 0 if name in _DOTS else min(wide, 2000) - 160
    return {
        "json": Markup(data),
        "caption": caption,
        "note": note,
        "height": int(height),
        "min_width": int(narrow),
    }


def _no_overlap_null(results: Results) -> str:
    """Says why overlap has no null; nothing where it has one, or where there is no overlap."""
    if not (results.ranking.frame["score"] == "background").any():
        return ""
    dose = results.summary.get("overlap_dose", results.summary["dose"])
    return str(overlap_total(results.ranking, dose=dose).attrs["no_null"])
