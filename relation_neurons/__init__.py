"""Finding and testing relation-specific neurons in language models, on TransformerLens.

A toolkit around *On Relation-Specific Neurons in Large Language Models* (Liu et al., EMNLP 2025).
The modules beside the packages (`errors`, `version`, `neurons`, `formatting`, `notebook_html`, `progress`)
come first; then the packages, each importing only from those above it:

    storage      files on disk: written whole, checksummed, locked, resumable
    relations    facts, templates, and the prompts made of them
    backends     the two TransformerLens versions behind one interface
    inference    running a model over prompts: batches, forward passes, logits, recall
    models       loading a model and checking it
    activations  one pooled activation per prompt and neuron
    scoring      array kernels: average precision, AUROC, d', permutation maxima
    ranking      which neurons detect a relation, by which criterion, and how reliably
    ablation     ablating sets of neurons and measuring the effect
    engines      where the ablated sets of a run are computed: this process or Ray workers
    analysis     tables and statistics from the effects
    results      what a run is (options, manifest, plan) and the tables it leaves
    plots        tables in, Plotly figures out
    report       the HTML report, its summary, and neuron cards
    planted      small models whose relation neurons are known
    experiment   the whole run, stage by stage, and the comparison of criteria
    cli          the command line

Only `models` loads a model. Only `inference`, `activations` and `ablation` run one over prompts; packages
below them in this list call these, while `analysis` and `plots` work on tables alone.
Names are imported when they are first used, so that looking at relations does not load torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from relation_neurons.version import __version__ as __version__

# Torch's threads spin while they wait. Beside other work on a machine of two cores, a pass took 30 times as
# long as without; with this bound it takes 3 times as long, and is not slower on an idle machine. The
# variable is read when torch loads, so it takes effect only if this package is imported first.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if TYPE_CHECKING:
    from relation_neurons import errors, plots
    from relation_neurons.ablation.collateral import collateral_damage
    from relation_neurons.ablation.controls import draw_control
    from relation_neurons.ablation.hooks import ablated
    from relation_neurons.ablation.sweep import ablation_sweep, block_sweep
    from relation_neurons.activations.attribution import collect_attribution
    from relation_neurons.activations.collect import collect_activations
    from relation_neurons.activations.table import ActivationTable, neuron_activations
    from relation_neurons.analysis.cumulativity import dose_curves, dose_numbers, joint_effect
    from relation_neurons.analysis.flips import majority_share, turned_right
    from relation_neurons.analysis.interference import (
        interference_matrix,
        specificity,
        specificity_intervals,
    )
    from relation_neurons.analysis.versatility import (
        overlap_matrix,
        overlap_total,
        set_intersections,
        transfer_matrix,
    )
    from relation_neurons.engines.ray_engine import RayEngine
    from relation_neurons.experiment.comparison import Comparison, compare_criteria, compare_scores
    from relation_neurons.experiment.run import run
    from relation_neurons.inference.recall import measure_recall
    from relation_neurons.models.loading import load_model
    from relation_neurons.models.registry import known_models
    from relation_neurons.neurons import neuron_name, parse_neuron
    from relation_neurons.planted.model import Planted, planted_model
    from relation_neurons.planted.recovery import recovered, recovered_shared
    from relation_neurons.ranking.known import known_facts
    from relation_neurons.ranking.null import null_maximum
    from relation_neurons.ranking.overlap_null import overlap_null
    from relation_neurons.ranking.rank import rank_neurons
    from relation_neurons.ranking.stability import ranking_stability
    from relation_neurons.ranking.table import Ranking
    from relation_neurons.relations.checks import check_relations
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.relations.lre import fetch_lre
    from relation_neurons.relations.prompts import Prompts, make_prompts
    from relation_neurons.relations.relation import Fact, Relation, Template
    from relation_neurons.relations.saving import save_relations
    from relation_neurons.relations.shipped import list_shipped, write_example
    from relation_neurons.report.build_card import neuron_card
    from relation_neurons.report.neuron_card import NeuronCard
    from relation_neurons.results.results import Results, load_results
    from relation_neurons.scoring.scores import average_precision

__all__ = [
    "ActivationTable",
    "Comparison",
    "Fact",
    "NeuronCard",
    "Planted",
    "Prompts",
    "Ranking",
    "RayEngine",
    "Relation",
    "Results",
    "Template",
    "ablated",
    "ablation_sweep",
    "average_precision",
    "block_sweep",
    "check_relations",
    "collateral_damage",
    "collect_activations",
    "collect_attribution",
    "compare_criteria",
    "compare_scores",
    "dose_curves",
    "dose_numbers",
    "draw_control",
    "errors",
    "fetch_lre",
    "interference_matrix",
    "joint_effect",
    "known_facts",
    "known_models",
    "list_shipped",
    "load_model",
    "load_relations",
    "load_results",
    "majority_share",
    "make_prompts",
    "measure_recall",
    "neuron_activations",
    "neuron_card",
    "neuron_name",
    "null_maximum",
    "overlap_matrix",
    "overlap_null",
    "overlap_total",
    "parse_neuron",
    "planted_model",
    "plots",
    "rank_neurons",
    "ranking_stability",
    "recovered",
    "recovered_shared",
    "run",
    "save_relations",
    "set_intersections",
    "specificity",
    "specificity_intervals",
    "transfer_matrix",
    "turned_right",
    "write_example",
]

_HOMES = {
    "ablation.collateral": ("collateral_damage",),
    "ablation.hooks": ("ablated",),
    "ablation.controls": ("draw_control",),
    "ablation.sweep": (
        "ablation_sweep",
        "block_sweep",
    ),
    "activations.attribution": ("collect_attribution",),
    "activations.collect": ("collect_activations",),
    "activations.table": (
        "ActivationTable",
        "neuron_activations",
    ),
    "analysis.cumulativity": (
        "dose_curves",
        "dose_numbers",
        "joint_effect",
    ),
    "analysis.flips": (
        "majority_share",
        "turned_right",
    ),
    "analysis.interference": (
        "interference_matrix",
        "specificity",
        "specificity_intervals",
    ),
    "analysis.versatility": (
        "overlap_matrix",
        "overlap_total",
        "set_intersections",
        "transfer_matrix",
    ),
    "engines.ray_engine": ("RayEngine",),
    "experiment.comparison": (
        "Comparison",
        "compare_criteria",
        "compare_scores",
    ),
    "experiment.run": ("run",),
    "inference.recall": ("measure_recall",),
    "models.loading": ("load_model",),
    "models.registry": ("known_models",),
    "neurons": (
        "neuron_name",
        "parse_neuron",
    ),
    "planted.model": (
        "Planted",
        "planted_model",
    ),
    "planted.recovery": (
        "recovered",
        "recovered_shared",
    ),
    "ranking.known": ("known_facts",),
    "ranking.null": ("null_maximum",),
    "ranking.overlap_null": ("overlap_null",),
    "ranking.rank": ("rank_neurons",),
    "ranking.stability": ("ranking_stability",),
    "ranking.table": ("Ranking",),
    "relations.checks": ("check_relations",),
    "relations.loading": ("load_relations",),
    "relations.lre": ("fetch_lre",),
    "relations.prompts": (
        "Prompts",
        "make_prompts",
    ),
    "relations.relation": (
        "Fact",
        "Relation",
        "Template",
    ),
    "relations.saving": ("save_relations",),
    "relations.shipped": (
        "list_shipped",
        "write_example",
    ),
    "report.build_card": ("neuron_card",),
    "report.neuron_card": ("NeuronCard",),
    "results.results": (
        "Results",
        "load_results",
    ),
    "scoring.scores": ("average_precision",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("errors", "plots"):
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
