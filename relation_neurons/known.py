"""Known: how many facts of each relation the model knows, per side and per wording, and what helps."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from relation_neurons.errors import UnknownOptionError
from relation_neurons.prompts import Prompts
from relation_neurons.relations import MIN_KNOWN, relation_label

__all__ = [
    "has_shots",
    "know_more",
    "known_counts",
    "known_facts",
    "left_out_relations",
    "what_helps",
]

SIDES = ("detection", "held_out")
_WRONG_SHOWN = 3


def known_counts(recall: pd.DataFrame) -> pd.DataFrame:
    """Counts facts and known facts per relation, language and side.

    A fact counts as known on a side when the model answers at least one of its prompts there.
    """
    facts = recall.groupby(["relation", "language", "side", "subject"], sort=True)["known"].any()
    return facts.groupby(level=[0, 1, 2]).agg(facts="size", known="sum").reset_index()


def left_out_relations(recall: pd.DataFrame, min_known: int = MIN_KNOWN) -> dict[str, str]:
    """Names the relations with too few known facts on a side, with the reason.

    Where the prompts are in several languages, each is named with its own.
    """
    reasons: dict[str, str] = {}
    several = recall["language"].nunique() > 1
    for (relation, language), rows in known_counts(recall).groupby(["relation", "language"]):
        counts = {row.side: (int(row.known), int(row.facts)) for row in rows.itertuples()}
        sides = [(side, *counts.get(side, (0, 0))) for side in SIDES]
        if any(known < min_known for _, known, _ in sides):
            said = " and ".join(f"{known} of {facts} {side}" for side, known, facts in sides)
            name = relation_label(relation, language, several=several)
            reasons[name] = f"knows {said} facts, {min_known} are needed on each side"
    return reasons


def known_facts(
    prompts: Prompts | pd.DataFrame, recall: pd.DataFrame, *, min_known: int = MIN_KNOWN
) -> pd.DataFrame:
    """Counts the known facts of each relation in each wording, beside what decides on leaving it out.

    A relation is left out where `known_on_side` is below `needed` on either side. That count is not the
    sum of `known`: a fact counts once, when at least one of the side's wordings gets its answer.

    Args:
        prompts: what `make_prompts` gives, or the table `prompts` of a run.
        recall: what `measure_recall` gives of these prompts.
        min_known: as in `rank_neurons`.

    Returns:
        A row per relation, language, side and template (in the order of the data, detection first):
        known and facts (those asked in this wording), known_on_side, needed, and wrong: the commonest
        answers that are not correct, as far as the first wrong token, with how often.

    Raises:
        UnknownOptionError: the recall is of other prompts.
    """
    frame = prompts.frame if isinstance(prompts, Prompts) else prompts
    same = ["prompt_id", "relation", "language", "subject", "side"]
    asked = recall.merge(frame[[*same, "template"]], on=same)
    if len(asked) != len(recall):
        raise UnknownOptionError(
            f"{len(recall) - len(asked)} of the {len(recall)} prompts in recall are not among these; "
            "expected the prompts that it was measured on, detection and held-out."
        )
    on_side = known_counts(recall).set_index(["relation", "language", "side"])["known"]
    rows: list[dict[str, Any]] = []
    for (relation, language), part in asked.groupby(["relation", "language"], sort=False):
        for side in SIDES:
            for template, said in part[part["side"] == side].groupby("template", sort=False):
                by_fact = said.groupby("subject")["known"].any()
                rows.append(
                    {
                        "relation": relation,
                        "language": language,
                        "side": side,
                        "template": template,
                        "known": int(by_fact.sum()),
                        "facts": len(by_fact),
                        "known_on_side": int(on_side[(relation, language, side)]),
                        "needed": min_known,
                        "wrong": _commonest(said.loc[~said["known"], "predicted"]),
                    }
                )
    return pd.DataFrame(rows)


def _commonest(answers: pd.Series) -> str:
    """The commonest texts with how often, those as common in the order of the alphabet."""
    counts = sorted(answers.value_counts().items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{text!r} x{count}" for text, count in counts[:_WRONG_SHOWN])


def has_shots(prompts: pd.DataFrame) -> bool:
    """Whether solved examples stand in front: a fact's text is more than its template filled in."""
    facts = prompts.loc[prompts["kind"] == "fact", ["template", "subject", "text"]]
    return any(
        text != template.replace("{}", subject)
        for template, subject, text in facts.itertuples(index=False)
    )


def know_more(prompts: pd.DataFrame) -> str:
    """Says what to do where too few facts are known, in the order in which it is worth trying.

    Args:
        prompts: the frame of the prompts asked; solved examples are no advice where there are some.
    """
    shots = "" if has_shots(prompts) else "solved examples in front (make_prompts(…, shots=3)); "
    return (
        "See what is known in each wording, and what the model says instead: rn.known_facts(prompts, "
        f"recall), or relation-neurons relations check FILE --model NAME. What helps: {shots}a wording "
        "that the answer must follow at once; the wording it knows best last, as that one is judged "
        "in; more facts; a model that knows more."
    )


def what_helps(wordings: pd.DataFrame, *, shots: bool) -> str:
    """Says what to do about one relation that is left out, from what is known of it.

    Args:
        wordings: its rows of `known_facts`.
        shots: whether solved examples stood in front.
    """
    share = wordings["known"] / wordings["facts"]
    short = wordings[wordings["known_on_side"] < wordings["needed"]].drop_duplicates("side")
    help_: list[str] = []
    detects = share[wordings["side"] == "detection"]
    judges = share[wordings["side"] == "held_out"]
    if "held_out" in set(short["side"]) and len(detects) and detects.max() > judges.max():
        best = wordings.loc[detects.idxmax(), "template"]
        help_.append(
            f"put {best!r} last, to be judged in: {detects.max():.0%} are known in it, and "
            f"{judges.max():.0%} in the last one now"
        )
    if not shots:
        help_.append("solved examples in front (--shots 3)")
    help_.append("a wording that the answer must follow at once")
    for row in short.itertuples():
        asked = wordings.loc[wordings["side"] == row.side, "facts"].max()
        more = math.ceil(row.needed * asked / row.known_on_side) if row.known_on_side else None
        help_.append(
            f"more facts: {row.side} has {asked}, and takes some {more} where as large a share is known"
            if more
            else "a model that knows more: more facts alone do not help where none is known"
        )
    return "; ".join(dict.fromkeys(help_))
