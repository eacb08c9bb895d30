"""The third stage of a run: summary, figures and report, with no model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pandas as pd

from relation_neurons.analysis.interference import interference_matrix
from relation_neurons.experiment.ablate_stage import Ablations
from relation_neurons.ranking.table import Ranking
from relation_neurons.report.page import build_report, make_figures
from relation_neurons.report.summary import claims, summarise
from relation_neurons.results.results import Results
from relation_neurons.results.table_store import TableStore
from relation_neurons.storage.files import write_json, write_text
from relation_neurons.storage.run_folder import (
    record,
)

__all__ = ["report_stage"]


def report_stage(
    manifest: dict[str, Any],
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    ranking: Ranking,
    ablations: Ablations,
    store: TableStore,
) -> Results:
    """Summary, figures and report; needs no model."""
    started = time.monotonic()
    results = Results(
        manifest,
        prompts,
        recall,
        ranking,
        ablations.effects,
        folder=store.folder,
        collateral=ablations.collateral,
        home_draws=ablations.home_draws,
        blocks=ablations.blocks,
        null=store.read_or_empty("null"),
        stability=store.read_or_empty("stability"),
        overlap=pd.DataFrame() if ranking.overlap_null is None else ranking.overlap_null,
    )
    dose, contrast = ablations.dose, manifest["options"]["score"]
    matrix = interference_matrix(
        ablations.effects, ablations.home_draws, dose=dose, contrast=contrast, seed=manifest["seed"]
    )
    summary = summarise(manifest, recall, ranking, ablations.effects, dose=dose, matrix=matrix)
    results = replace(results, summary=summary)
    results = replace(results, summary=summary | claims(results, dose))
    if store.folder is not None:
        summary_path = store.folder / "summary.json"
        write_json(summary_path, results.summary)
        figures = make_figures(results, matrix)
        paths = {name: store.folder / "figures" / f"{name}.json" for name in figures}
        for name, figure in figures.items():
            write_text(paths[name], figure.to_json())
        page = store.folder / "report.html"
        write_text(page, build_report(results, figures, matrix))
        record(store.folder, summary_path, *paths.values(), page)
        store.done("report", started)
    return results
