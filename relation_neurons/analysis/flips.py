"""Flips: which facts an ablation turns right or wrong, and how often the majority answer is said.

Finding (iii) of the paper says that ablating one relation's neurons improves another. Net flips hide
two things: facts near a tie flip under random neurons too (so each flip is shown beside its control),
and a model that says a relation's commonest answer everywhere seems improved (pitfalls 7 and 23).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.ablation.controls import CONTROL_KINDS
from relation_neurons.analysis.effects import (
    estimate,
    fact_keys,
    of_contrast,
    only_dose,
    same_language,
    within_language,
)
from relation_neurons.errors import RelationFormatError, UnknownOptionError, near_matches
from relation_neurons.relations.relation import subject_key
from relation_neurons.version import renamed

__all__ = ["NEAR_TIE", "majority_answers", "majority_share", "says", "turned_right"]

NEAR_TIE = 0.2
"""A near tie: the intact margin is below this many logits, either way.

In the reference run random neurons (contribution-matched) flip 13, 14, 21, 23 and 26% of near ties, by dose.
"""

_PAIR = ["relation", "language"]
_KEYS = ["ablated", "ablated_language", "prompt_id"]


@renamed(score="contrast")
def turned_right(
    effects: pd.DataFrame,
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    *,
    dose: int | None = None,
    contrast: str = "specific",
    control: str = "control_contribution",
    relations: Sequence[Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Lists the facts that a ranked set turns right, and those that it turns wrong.

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        prompts: the frame of `Prompts` (`prompts.parquet`).
        recall: from `measure_recall`, for what the intact model says.
        dose: neurons ablated; the middle dose by default.
        contrast: the contrast of the ranking whose sets are used.
        control: the control whose draws a flip is compared with.
        relations: those of the manifest, for their majority answers; by default these are counted in
            `prompts`.

    Returns:
        A row per flip: ablated, ablated_language, where (`home` / `elsewhere`), relation, language,
        flip (`right` / `wrong`), prompt_id, subject, answer, text, predicted_intact, predicted,
        margin_intact, margin (logits), control_share (the share of the control's draws that flip the same
        prompt, necessarily in the same way; NaN without a control), near_tie (intact margin within
        0.2 logits of 0) and majority (`predicted` is the relation's majority answer; see `says`).
        Facts turned right come first, and within each, those that flip most rarely under the control.

    Raises:
        RelationFormatError: a table lacks a column.
        DoseError: the dose was not swept.
    """
    rows = _judged(effects, prompts, recall, dose, contrast, control, relations)
    rows = rows.assign(
        flipped=rows["correct"] != rows["correct_intact"],
        where=np.where(rows["relation"] == rows["ablated"], "home", "elsewhere"),
        flip=np.where(rows["correct"], "right", "wrong"),
        near_tie=rows["margin_intact"].abs() < NEAR_TIE,
    )
    drawn = rows[rows["kind"] == control]
    share = drawn.groupby(_KEYS)["flipped"].mean().rename("control_share").astype(float)
    flips = rows[(rows["kind"] == "ranked") & rows["flipped"]].join(share, on=_KEYS)
    columns = [
        *("ablated", "ablated_language", "where", *_PAIR, "flip", "prompt_id"),
        *("subject", "answer", "text", "predicted_intact", "predicted"),
        *("margin_intact", "margin", "control_share", "near_tie", "majority"),
    ]
    order = ["flip", "control_share", "ablated", "ablated_language", "prompt_id"]
    return flips.sort_values(order, kind="stable")[columns].reset_index(drop=True)


@renamed(score="contrast", seed=None)
def majority_share(
    effects: pd.DataFrame,
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    *,
    dose: int | None = None,
    contrast: str = "specific",
    control: str = "control_contribution",
    relations: Sequence[Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Returns how often the model says a relation's majority answer: intact, ablated and under control.

    If accuracy rises and this share rises with it, the set has made the model say one answer more
    often and has not made it know more (pitfall 7).

    Args:
        effects: the sweep's table. With several languages, each set is judged in its own.
        prompts: see `turned_right`, also for recall, dose, contrast, control and relations.

    Returns:
        A row per (ablated, relation), named as in `interference_matrix`: dose, n (prompts), majority
        (the answer), baseline (share of facts that it answers), intact, share (under the ranked set)
        and control (mean over draws), all as shares of held-out prompts; difference (share - control)
        with its 95% interval low and high (see `intervals`); unclear (share under the ranked set whose wrong
        start fits the majority answer and another one, not counted in share; see `says`);
        turned_right (prompts that the ranked set turns right) and turned_right_majority (of these,
        those that say the majority answer, which is certain).

    Raises:
        RelationFormatError: a table lacks a column.
    """
    rows = _judged(effects, prompts, recall, dose, contrast, control, relations)
    rows = within_language(rows.assign(fact=fact_keys(rows)))
    found = []
    for (ablated, relation), cell in rows.groupby(["ablated", "relation"], sort=True):
        ranked = cell[cell["kind"] == "ranked"].set_index("prompt_id")
        drawn = cell[cell["kind"] == control].groupby("prompt_id")["majority"].mean()
        beside = drawn.reindex(ranked.index)
        paired = (ranked["majority"] - beside).to_numpy(float)
        difference, low, high = estimate(paired, ranked["fact"])
        right = ranked["correct"] & ~ranked["correct_intact"]
        found.append(
            {
                "ablated": ablated,
                "relation": relation,
                "dose": int(ranked["dose"].iloc[0]),
                "n": len(ranked),
                "majority": ranked["majority_answer"].iloc[0],
                "baseline": float(ranked["baseline"].iloc[0]),
                "intact": float(ranked["majority_intact"].mean()),
                "share": float(ranked["majority"].mean()),
                "control": float(beside.mean()),
                "difference": difference,
                "low": low,
                "high": high,
                "unclear": float(ranked["unclear"].mean()),
                "turned_right": int(right.sum()),
                "turned_right_majority": int((right & ranked["majority"]).sum()),
            }
        )
    return pd.DataFrame(found)


def majority_answers(source: pd.DataFrame | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Finds each relation's commonest answer, over all facts of both sides (pitfall 7).

    Args:
        source: the frame of `Prompts`, in which each fact counts once, with its first object; or the
            manifest's relations, in which every accepted object counts.

    Returns:
        A row per (relation, language): majority_answer and baseline (the share of facts it answers).
    """
    if not isinstance(source, pd.DataFrame):
        named = {
            "relation": "name",
            "language": "language",
            "majority_answer": "majority_object",
            "baseline": "majority_share",
        }
        table = pd.DataFrame(list(source))
        _require(table, named.values(), "the manifest's relations")
        return pd.DataFrame({column: table[name] for column, name in named.items()})
    _require(source, ("kind", *_PAIR, "fact", "answer"), "prompts")
    facts = source[source["kind"] == "fact"].drop_duplicates([*_PAIR, "fact"])
    counts = facts.groupby([*_PAIR, "answer"], observed=True).size().rename("count").reset_index()
    counts["baseline"] = counts["count"] / counts.groupby(_PAIR, observed=True)["count"].transform(
        "sum"
    )
    best = counts.sort_values([*_PAIR, "count", "answer"], ascending=[True, True, False, True])
    best = best.drop_duplicates(_PAIR).rename(columns={"answer": "majority_answer"})
    text = dict.fromkeys((*_PAIR, "majority_answer"), str)
    return best[[*_PAIR, "majority_answer", "baseline"]].astype(text).reset_index(drop=True)


def says(predicted: str, answer: str, others: Iterable[str] = (), *, whole: bool) -> bool | None:
    """Returns whether a prediction is an answer, or None if `predicted` does not tell.

    A correct prediction is complete and must equal the answer; another accepted spelling of it is not
    recognised. A wrong one ends at its first wrong token, so it need only begin the answer; if it
    begins one of the others too ("the", "South"), it is unclear which was meant.

    >>> says(" Guinea", "Guinea-Bissau", whole=True), says(" Pa", "Paris", whole=False)
    (False, True)
    >>> says(" South", "South Africa", ["South Korea"], whole=False) is None
    True
    """
    said, meant = subject_key(predicted.rstrip("\ufffd")), subject_key(answer)
    if whole or said in ("", meant):
        return said == meant
    if not meant.startswith(said):
        return False
    alike = any(subject_key(o).startswith(said) for o in others if subject_key(o) != meant)
    return None if alike else True


def _judged(
    effects: pd.DataFrame,
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    dose: int | None,
    contrast: str,
    control: str,
    relations: Sequence[Mapping[str, Any]] | None,
) -> pd.DataFrame:
    """Returns one dose's rows with prompts, intact predictions, and whether each is the majority answer."""
    if control not in CONTROL_KINDS:
        raise UnknownOptionError(
            f"There is no control {control!r}. {near_matches(control, CONTROL_KINDS)}"
        )
    _require(
        effects,
        (
            *("ablated", "ablated_language", "kind", "score", "dose", "prompt_id", *_PAIR),
            *("correct_intact", "correct", "margin_intact", "margin", "predicted"),
        ),
        "effects",
    )
    _require(prompts, ("prompt_id", "kind", *_PAIR, "subject", "answer", "text"), "prompts")
    _require(recall, ("prompt_id", "predicted"), "recall")
    rows, _ = only_dose(of_contrast(same_language(effects), contrast), dose)
    text = dict.fromkeys(("ablated", "ablated_language", "kind", *_PAIR), str)
    asked = prompts.set_index("prompt_id")[["subject", "answer", "text"]]
    intact = recall.set_index("prompt_id")["predicted"].rename("predicted_intact")
    rows = rows.astype(text).join(asked, on="prompt_id").join(intact, on="prompt_id")
    unasked = rows.loc[rows[["text", "predicted_intact"]].isna().any(axis=1), "prompt_id"]
    if len(unasked):
        raise RelationFormatError(
            f"Prompt {unasked.iloc[0]} of effects is not in prompts and recall; expected the tables of "
            "one run."
        )
    answers = majority_answers(prompts if relations is None else relations)
    rows = rows.merge(answers, on=_PAIR, how="left", validate="many_to_one")
    if rows["majority_answer"].isna().any():
        name = rows.loc[rows["majority_answer"].isna(), "relation"].iloc[0]
        raise RelationFormatError(
            f"No majority answer of {name!r} was found; expected the relations of this run."
        )
    facts = prompts[prompts["kind"] == "fact"].astype(dict.fromkeys(_PAIR, str))
    others = {pair: list(dict.fromkeys(own)) for pair, own in facts.groupby(_PAIR)["answer"]}
    for after in ("", "_intact"):
        read = cache(lambda *pair, meant, said, whole: says(said, meant, others[pair], whole=whole))
        found = [
            read(
                row.relation, row.language, meant=row.majority_answer, said=said, whole=bool(whole)
            )
            for row, said, whole in zip(
                rows[[*_PAIR, "majority_answer"]].itertuples(index=False),
                rows[f"predicted{after}"],
                rows[f"correct{after}"],
                strict=True,
            )
        ]
        rows[f"majority{after}"] = [one is True for one in found]
        rows[f"unclear{after}"] = [one is None for one in found]
    return rows


def _require(table: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise RelationFormatError(
            f"The table {what} lacks the column {missing[0]!r}; found: {', '.join(map(str, table))}."
        )
