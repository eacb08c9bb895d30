"""How many facts of each relation the model knows, per side and per wording, and what helps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pandas as pd

from relation_neurons.errors import UnknownOptionError
from relation_neurons.relations.prompts import Prompts
from relation_neurons.relations.relation import MIN_KNOWN, relation_label

__all__ = [
    "advice_for_ranking",
    "advice_for_relation",
    "has_shots",
    "known_counts",
    "known_facts",
    "left_out_relations",
]

SIDES = ("detection", "held_out")
_WRONG_SHOWN = 3
_CLEARLY = 0.1


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
        prompts: what `make_prompts` returns, or the table `prompts` of a run.
        recall: what `measure_recall` returns for these prompts.
        min_known: as in `rank_neurons`.

    Returns:
        A row per relation, language, side and template (in the order of the data, detection first):
        known and facts (those asked in this wording), known_on_side, needed, and wrong: the commonest
        answers that are not correct, as far as the first wrong token (so `' l'` may begin `lira`), with
        how often and one subject that was answered so.

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
                        "wrong": _commonest(said[~said["known"]]),
                    }
                )
    return pd.DataFrame(rows)


def _commonest(wrong: pd.DataFrame) -> str:
    """Returns the commonest texts with their count and one subject; equal counts alphabetically."""
    counts = sorted(wrong["predicted"].value_counts().items(), key=lambda item: (-item[1], item[0]))
    subjects = wrong.drop_duplicates("predicted").set_index("predicted")["subject"]
    shown = counts[:_WRONG_SHOWN]
    return ", ".join(f"{text!r} x{count} ({subjects[text]})" for text, count in shown)


def has_shots(prompts: pd.DataFrame) -> bool:
    """Says whether solved examples stand in front: a fact's text is more than its template filled in.

    A table of activations made by hand may have no texts; then there are taken to be none.
    """
    if not {"template", "text"} <= set(prompts.columns):
        return False
    facts = prompts.loc[prompts["kind"] == "fact", ["template", "subject", "text"]]
    return any(
        text != template.replace("{}", subject)
        for template, subject, text in facts.itertuples(index=False)
    )


def advice_for_ranking(prompts: pd.DataFrame) -> str:
    """Says what to do where too few facts are known, most promising first.

    Args:
        prompts: the frame of the prompts asked; solved examples are not advised where there are some already.
    """
    shots = "" if has_shots(prompts) else "solved examples in front (make_prompts(…, shots=3)); "
    return (
        "See what is known in each wording, and what the model says instead: rn.known_facts(prompts, "
        f"recall), or relation-neurons relations check FILE --model NAME. What helps: {shots}a wording "
        "that the answer must follow at once; the wording it knows best last, as that one is judged "
        "in; more facts; a model that knows more."
    )


def advice_for_relation(wordings: pd.DataFrame, *, shots: bool) -> tuple[str, ...]:
    """Says what to do about one relation that is left out, from what is known of it.

    Args:
        wordings: its rows of `known_facts`.
        shots: whether solved examples stood in front.

    Returns:
        Each thing to do, the cheapest first. The number of facts assumes that the same share of
        additional facts would be known.
    """
    short = wordings[wordings["known_on_side"] < wordings["needed"]].drop_duplicates("side")
    found = [*_better_last(wordings)] if "held_out" in set(short["side"]) else []
    if not shots:
        found.append("solved examples in front: --shots 3")
    found.append("a wording that the answer must follow at once")
    for row in short.itertuples():
        asked = wordings.loc[wordings["side"] == row.side, "facts"].max()
        if row.known_on_side:
            takes = math.ceil(row.needed * asked / row.known_on_side)
            found.append(f"more facts: some {takes} on the side {row.side}, where {asked} are now")
        else:
            found.append(f"a model that knows some: of {asked} facts {row.side} it knows none")
    return tuple(found)


def _better_last(wordings: pd.DataFrame) -> Iterator[str]:
    """Names a detection wording that the model knows clearly better than those judged in."""
    share = wordings["known"] / wordings["facts"]
    detects, judges = (share[wordings["side"] == side] for side in SIDES)
    if len(detects) and len(judges) and detects.max() >= judges.max() + _CLEARLY:
        yield (
            f"the wording {wordings.loc[detects.idxmax(), 'template']!r} last, to be judged in: it is "
            f"known for {detects.max():.0%} of its facts, the one that is last now for {judges.max():.0%}"
        )
