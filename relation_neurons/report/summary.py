"""Everything in `summary.json`: the headline and, for each property, the numbers and how certain they are."""

from __future__ import annotations

from typing import Any

import pandas as pd

from relation_neurons.analysis.cell_tests import claim_families
from relation_neurons.analysis.contrasts import (
    contrasts,
    headline,
    known_against_others,
    known_by_language,
)
from relation_neurons.analysis.cumulativity import dose_numbers, joint_effect
from relation_neurons.analysis.effects import only_dose
from relation_neurons.analysis.flips import majority_share, turned_right
from relation_neurons.analysis.interference import (
    interference_matrix,
    specificity,
    specificity_intervals,
)
from relation_neurons.analysis.versatility import overlap_total
from relation_neurons.ranking.known import known_counts
from relation_neurons.ranking.stability import stability_summary
from relation_neurons.ranking.table import Ranking
from relation_neurons.results.results import Results

__all__ = ["claims", "collateral_at", "recall_shown", "summarise"]


def claims(results: Results, dose: int) -> dict[str, Any]:
    """Computes what `summary.json` holds beside the headline.

    Args:
        results: of a run; what it left out is left out here. If its summary judges the same dose, the
            contrasts are taken from there.
        dose: the judged dose.

    Returns:
        Lists of rows: specificity, cumulativity (`dose_numbers`), joint (`joint_effect`), turned
        (`turned_right`), majority (`majority_share`), collateral (`collateral_at`), null, stability,
        overlap (`overlap_total` of each contrast that was dealt), and recall (relation, verdict; see
        `recall_shown`).
    """
    contrast = results.manifest["options"].get("score", "specific")
    effects, seed = results.effects, results.manifest.get("seed", 0)
    asked: dict[str, Any] = {
        "dose": dose,
        "contrast": contrast,
        "relations": results.manifest["relations"],
    }
    tables = {
        "specificity": specificity_intervals(effects, dose=dose, contrast=contrast),
        "cumulativity": dose_numbers(effects, contrast=contrast, seed=seed),
        "turned": turned_right(effects, results.prompts, results.recall, **asked),
        "majority": majority_share(effects, results.prompts, results.recall, **asked),
        "null": results.null,
    }
    if len(results.blocks):
        tables["joint"] = joint_effect(results.blocks)
    if len(results.collateral):
        tables["collateral"] = collateral_at(results.collateral)
    if len(results.stability):
        tables["stability"] = stability_summary(results.stability)
    dealt = dict.fromkeys(results.overlap["score"]) if len(results.overlap) else ()
    if dealt:
        totals = [overlap_total(results.ranking, dose=dose, contrast=name) for name in dealt]
        tables["overlap"] = pd.concat(totals, ignore_index=True)
    there = results.summary.get("contrasts") if results.summary.get("dose") == dose else None
    compared = pd.DataFrame(
        there or contrasts(effects, results.home_draws, dose=dose, contrast=contrast, seed=seed)
    )
    names = dict.fromkeys(compared["relation"])
    tables["recall"] = pd.DataFrame(
        [{"relation": name, "verdict": recall_shown(compared, name)} for name in names]
    )
    return {name: table.to_dict("records") for name, table in tables.items()}


def collateral_at(collateral: pd.DataFrame) -> pd.DataFrame:
    """Averages collateral damage over relations, at each dose.

    Returns:
        A row per dose and kind (`ranked` / `control_contribution`): kl and logloss_change (mean over
        sets, nats per token), worst_kl with its set (worst), and tokens.
    """
    rows = []
    for (dose, kind), cell in collateral.groupby(["dose", "kind"], sort=True, observed=True):
        worst = cell.loc[cell["kl"].idxmax()]
        rows.append(
            {
                "dose": int(dose),
                "kind": str(kind),
                "kl": float(cell["kl"].mean()),
                "logloss_change": float(cell["logloss_change"].mean()),
                "worst_kl": float(worst["kl"]),
                "worst": str(worst["ablated"]),
                "tokens": int(worst["tokens"]),
            }
        )
    return pd.DataFrame(rows)


def recall_shown(compared: pd.DataFrame, relation: str, *, alpha: float = 0.05) -> str:
    """Returns whether recall is shown: only if known facts beat both checks (method 3; pitfall 25).

    Args:
        compared: from `analysis.contrasts.contrasts`.
        relation: the relation whose set is judged.
        alpha: the level of each comparison.

    Returns:
        `recall`, `question` (a check harms as much), `no effect` (nothing beyond the control) or
        `open` (a check was not run).
    """
    rows = compared[compared["relation"] == relation].set_index("against")

    def beats(against: str, p: str) -> bool:
        row = rows.loc[against]
        return bool(row["difference"] < 0 and row[p] <= alpha)

    if "control_contribution" not in rows.index:
        return "open"
    if not beats("control_contribution", "p_value"):
        return "no effect"
    checks = [name for name in ("unknown", "nonsense") if name in rows.index]
    if any(not beats(name, "p_sign_flip") for name in checks):
        return "question"
    return "recall" if len(checks) == 2 else "open"


def summarise(
    manifest: dict[str, Any],
    recall: pd.DataFrame,
    ranking: Ranking,
    effects: pd.DataFrame,
    *,
    dose: int | None = None,
    matrix: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Computes the summary's main numbers: doses, headline, and a row per relation.

    Args:
        manifest: of the run.
        recall: from `measure_recall`.
        ranking: from `rank_neurons`.
        effects: the sweep's table.
        dose: the judged dose; the middle one by default.
        matrix: from `interference_matrix` at that dose, if it is computed already.
    """
    contrast, seed = manifest["options"]["score"], manifest.get("seed", 0)
    main = effects[effects["score"] == contrast]
    _, dose = only_dose(main, dose)
    if matrix is None:
        matrix = interference_matrix(effects, dose=dose, contrast=contrast, seed=seed)
    compared = known_against_others(effects, dose=dose, contrast=contrast)
    against = contrasts(effects, dose=dose, contrast=contrast, seed=seed, matrix=matrix)
    return {
        "doses": sorted(int(d) for d in main["dose"].unique()),
        "dose": dose,
        "dose_share": dose / len(ranking.neurons),
        "overlap_dose": dose,
        "score": contrast,
        "rows": len(effects),
        "headline": headline(effects, dose=dose, contrast=contrast).to_dict("records"),
        "scores": compared.to_dict("records"),
        "contrasts": against.to_dict("records"),
        "families": claim_families(matrix).to_dict("records"),
        "relations": _per_relation(manifest, recall, ranking, matrix, dose, compared),
        "languages": known_by_language(recall, ranking, contrast).to_dict("records"),
        "left_out": ranking.missing(contrast),
    }


def _per_relation(
    manifest: dict[str, Any],
    recall: pd.DataFrame,
    ranking: Ranking,
    matrix: pd.DataFrame,
    dose: int,
    compared: pd.DataFrame,
) -> list[dict[str, Any]]:
    contrast = manifest["options"]["score"]
    counts = known_counts(recall).set_index(["relation", "language", "side"])
    labels = ranking.labels(contrast)
    specific = specificity(matrix).set_index("ablated")
    tested = matrix[matrix["ablated"] == matrix["relation"]].set_index("ablated")
    judged = recall[recall["side"] == "held_out"].groupby(["relation", "language"])["known"].mean()
    home = compared.set_index(["relation", "score"])["effect"]
    rows = []
    for described in manifest["relations"]:
        name, language = described["name"], described["language"]
        label = labels.get((name, language), name)
        row = {
            "relation": name,
            "language": language,
            "label": label,
            "ranked": (name, language) in labels,
            "facts": described["facts"],
            "majority_object": described["majority_object"],
            "majority_share": described["majority_share"],
            "accuracy_intact": float(judged.get((name, language), float("nan"))),
        }
        for side in ("detection", "held_out"):
            row[f"facts_{side}"] = int(counts["facts"].get((name, language, side), 0))
            row[f"known_{side}"] = int(counts["known"].get((name, language, side), 0))
        if row["ranked"] and label in specific.index:
            row |= {
                "sinks": int(
                    ranking.top(name, dose, contrast=contrast, language=language)["is_sink"].sum()
                ),
                "home_p": float(tested.loc[label, "p_value"]),
                "home_q": float(tested.loc[label, "q_value"]),
                "home_draws": int(tested.loc[label, "draws"]),
                "home_draws_needed": int(tested.loc[label, "draws_needed"]),
                "home_significant": bool(
                    tested.loc[label, "significant"] and tested.loc[label, "difference"] < 0
                ),
                "row": float(specific.loc[label, "row"]),
                "column": float(specific.loc[label, "column"]),
                "known_effect": float(home[label, contrast]),
                "unknown_effect": float(home.get((label, "unknown"), float("nan"))),
            }
        rows.append(row)
    return rows
