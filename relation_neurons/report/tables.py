"""The report's tables: rows of `summary.json`, put together and put into words."""

from __future__ import annotations

import math
from typing import Any

from relation_neurons.formatting import number
from relation_neurons.relations.relation import ALL_RELATIONS, relation_label
from relation_neurons.results.results import Results

__all__ = ["FILTERS", "tables"]

_VERDICTS = {
    "recall": "recall",
    "question": "the question: a check harms as much",
    "no effect": "no harm beyond the control",
    "open": "open: a check was not run",
}

Rows = list[dict[str, Any]]


def tables(results: Results) -> dict[str, Rows]:
    """Gives the rows of every table beside the figures; a run without them gets none.

    Returns:
        specific, cumulativity, joint, collateral, majority, verdicts and null.
    """
    summary = results.summary
    return {
        "specific": sorted(
            summary.get("specificity") or [], key=lambda row: row["ablated"] == ALL_RELATIONS
        ),
        "cumulativity": _cumulativity(summary),
        "joint": _joint(summary),
        "collateral": _collateral(summary),
        "majority": _majority(summary),
        "verdicts": _verdicts(summary),
        "null": summary.get("null") or [],
    }


def _several(summary: dict[str, Any]) -> bool:
    return len(summary["languages"]) > 1


def _cumulativity(summary: dict[str, Any]) -> Rows:
    rows = [row for row in summary.get("cumulativity") or [] if row["where"] == "home"]
    return [row | {"label": _label(row, summary)} for row in rows]


def _joint(summary: dict[str, Any]) -> Rows:
    rows = summary.get("joint") or []
    random = {
        (row["ablated"], row["ablated_language"]): row["difference"]
        for row in rows
        if row["kind"] != "ranked"
    }
    return [
        row
        | {
            "label": _label(row, summary),
            "first": row["block_1"],
            "last": row[f"block_{row['blocks']}"],
            "random": random.get((row["ablated"], row["ablated_language"])),
        }
        for row in rows
        if row["kind"] == "ranked"
    ]


def _label(row: dict[str, Any], summary: dict[str, Any]) -> str:
    return relation_label(row["ablated"], row["ablated_language"], several=_several(summary))


def _collateral(summary: dict[str, Any]) -> Rows:
    rows = summary.get("collateral") or []
    control = {row["dose"]: row for row in rows if row["kind"] == "control_contribution"}
    return [
        row
        | {
            "control_kl": control.get(row["dose"], {}).get("kl"),
            "control_logloss": control.get(row["dose"], {}).get("logloss_change"),
        }
        for row in rows
        if row["kind"] == "ranked"
    ]


def _majority(summary: dict[str, Any]) -> Rows:
    rows = summary.get("majority") or []
    away = [row for row in rows if row["ablated"] != row["relation"] and row["turned_right"]]
    return sorted(away, key=lambda row: -row["turned_right"])[:20]


def _verdicts(summary: dict[str, Any]) -> Rows:
    compared = {(row["relation"], row["against"]): row for row in summary.get("contrasts") or []}
    against = ("control_contribution", "unknown", "nonsense")
    rows = summary.get("recall") or []
    return [
        {
            "relation": row["relation"],
            "words": _VERDICTS[row["verdict"]],
            "differences": [compared.get((row["relation"], name)) for name in against],
        }
        for row in sorted(rows, key=lambda row: row["relation"] == ALL_RELATIONS)
    ]


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _spaced(name: Any) -> str:
    return str(name).replace("_", " ")


def _percent(value: float | None) -> str:
    return "n/a" if _missing(value) else f"{value:.0%}"


def _three(value: float | None) -> str:
    return "n/a" if _missing(value) else number(value, 3)


def _count(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{round(value):,}"


def _p_value(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "n/a"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


FILTERS = {
    "count": _count,
    "p_value": _p_value,
    "percent": _percent,
    "spaced": _spaced,
    "three": _three,
}
"""The template's filters."""
