"""Claims: what the report says in numbers of each property, and how sure it is, from a run's tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from relation_neurons.analysis.contrasts import contrasts
from relation_neurons.analysis.cumulativity import dose_numbers, joint_effect
from relation_neurons.analysis.flips import majority_share, turned_right
from relation_neurons.analysis.interference import specificity_intervals
from relation_neurons.ranking.stability import stability_summary
from relation_neurons.results.results import Results

__all__ = ["claims", "collateral_at", "recall_shown"]


def claims(results: Results, dose: int) -> dict[str, Any]:
    """Computes what `summary.json` holds beside the headline.

    Args:
        results: of a run; tables that it left out are left out here. Where its summary judges the same
            dose, its contrasts are taken from there.
        dose: the one that is judged.

    Returns:
        Lists of rows: specificity, cumulativity (`dose_numbers`), joint (`joint_effect`), turned
        (`turned_right`), majority (`majority_share`), collateral (`collateral_at`), null, stability,
        and recall (relation, verdict; see `recall_shown`).
    """
    score = results.manifest["options"].get("score", "specific")
    effects = results.effects
    asked: dict[str, Any] = {
        "dose": dose,
        "score": score,
        "relations": results.manifest["relations"],
    }
    tables = {
        "specificity": specificity_intervals(effects, dose=dose, score=score),
        "cumulativity": dose_numbers(effects, score=score),
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
    there = results.summary.get("contrasts") if results.summary.get("dose") == dose else None
    compared = pd.DataFrame(there) if there else contrasts(effects, dose=dose, score=score)
    names = dict.fromkeys(compared["relation"])
    tables["recall"] = pd.DataFrame(
        [{"relation": name, "verdict": recall_shown(compared, name)} for name in names]
    )
    return {name: table.to_dict("records") for name, table in tables.items()}


def collateral_at(collateral: pd.DataFrame) -> pd.DataFrame:
    """Averages collateral damage over relations, at each dose.

    Returns:
        A row per dose and kind (`ranked` / `control_contribution`): kl and logloss_change (mean over
        sets, nats per token), worst_kl with the set it is of (worst), and tokens.
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
    """Says what may be called recall: only where known facts beat both checks (method 3; pitfall 25).

    Args:
        compared: from `summary.contrasts`.
        relation: whose set.
        alpha: level of each comparison.

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
