"""The report's answer in sentences, each only as strong as its interval allows."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from relation_neurons.analysis.draw_tests import ALPHA
from relation_neurons.formatting import number
from relation_neurons.plots.claims import claim_sentences
from relation_neurons.relations.relation import ALL_RELATIONS, MIN_KNOWN
from relation_neurons.results.results import Results

__all__ = ["answer"]

_CHECKS = {"unknown": "facts the model gets wrong", "nonsense": "nonsense subjects"}


def answer(results: Results) -> list[str]:
    """Returns sentences on what was found, how certain it is, and what it does not show.

    Comparisons rest on paired differences on the same prompts (`summary["contrasts"]`): a sentence
    says "more" only if the named test has p at most 0.05; against the control that is the larger p
    of the sign-flip test over facts and the test by rank among control draws.
    """
    summary = results.summary
    said = [_effects(results), *_against_controls(results)]
    overall = _paired(summary, ALL_RELATIONS)
    if summary["score"] in ("specific", "background"):
        said.append(
            _recall_claim(overall)
            if _less(overall.get("control_contribution"))
            else "Where no harm beyond the control is shown, the checks on recall say nothing."
        )
    said.extend(_caveats(results))
    said.extend(_costs(summary))
    said.extend(_versatility(summary))
    said.append(
        "It is one model on these facts and wordings. That a set is needed for an answer does not mean that "
        "the fact is stored there."
    )
    return said


def _effects(results: Results) -> str:
    summary, model = results.summary, results.manifest["model"]
    rows = {r["what"]: r for r in summary["headline"] if r["relation"] == ALL_RELATIONS}
    dose = summary["dose"]
    parts = [
        f"In {model['name']}, ablating the {dose:,} neurons ({dose / model['n_neurons']:.2%} of "
        f"{model['n_neurons']:,}) that best detect a relation changes the share of that relation's "
        f"held-out facts it answers correctly by {_effect(rows['home'])}, over "
        f"{rows['home']['n']} prompts of {_counted(results)}."
    ]
    for what, words in (
        ("elsewhere", "On the facts of other relations, the same sets change it by {}."),
        (
            "control_contribution",
            "As many random neurons, matched on layer and contribution, change it by {} at home;",
        ),
        ("control_layer", "random neurons matched on layer alone, by {}."),
    ):
        if what in rows:
            parts.append(words.format(_effect(rows[what])))
    text = " ".join(parts)
    return f"{text[:-1]}." if text.endswith(";") else text


def _transfer(results: Results) -> str:
    ranked = {language for _, language in results.ranking.labels(results.summary["score"])}
    if len(ranked) > 1:
        return (
            "what carries over between languages, the transfer says. A fact in two languages counts as two "
            "prompts here, and as one in the intervals if it has one id in both"
        )
    return f"what is left is in {next(iter(ranked))} alone, so nothing is said about transfer"


def _counted(results: Results) -> str:
    pairs = results.ranking.labels(results.summary["score"])
    languages = {language for _, language in pairs}
    if len(languages) == 1:
        return f"{len(pairs)} relations"
    return f"{len(pairs)} relations, counted in each of {len(languages)} languages"


def _against_controls(results: Results) -> list[str]:
    """Returns sentences on the harm at home, against controls and against the other relations' sets."""
    overall = _paired(results.summary, ALL_RELATIONS)
    control = overall.get("control_contribution")
    if control is None:
        return ["No matched control was run, so nothing here says that these neurons are special."]
    on_the_same = f"the paired difference on the same prompts is {_effect(control)}"
    if math.isnan(_p(control)):
        first = (
            f"The paired difference from matched random neurons is {_effect(control)}, and it is not known "
            "how far random sets differ among themselves, so it is not shown to be more harm than matched "
            "random neurons do."
        )
    elif not _less(control):
        first = f"That is not shown to be more harm than matched random neurons do: {on_the_same}."
    else:
        others = overall.get("others")
        first = f"That is more harm than matched random neurons do: {on_the_same}."
        if others is None:
            first += " There is no other relation to tell whether that is specific."
        elif _less(others):
            first += (
                " It is also more than the other relations' sets do to the same prompts: by "
                f"{_effect(others)}."
            )
        else:
            first += (
                " It is not shown to be specific: against what the other relations' sets do to the same "
                f"prompts, the difference is {_effect(others)}."
            )
    return [first, *_single_relations(results.summary)]


def _single_relations(summary: dict[str, Any]) -> list[str]:
    """Returns what is shown of relations taken alone, or that nothing can be with so few random sets."""
    judged = [row for row in summary["relations"] if row.get("home_q") is not None]
    clear = [row["label"].replace("_", " ") for row in judged if row["home_significant"]]
    families = {row["family"]: row for row in summary.get("families") or []}
    home = families.get("home")
    if home is not None and home["draws_needed"] and not clear:
        return [
            claim_sentences(pd.DataFrame([home]))["home"].replace("no cell", "no relation alone")
        ]
    named = f" ({', '.join(clear)})" if clear else ""
    shown = (
        f"Taken alone, {len(clear)} of {len(judged)} relations show{'s' * (len(clear) == 1)} it, at a "
        f"false-discovery rate of 5%{named}."
    )
    away = families.get("away")
    return [shown, claim_sentences(pd.DataFrame([away]))["away"]] if away is not None else [shown]


def _caveats(results: Results) -> list[str]:
    """Returns sentences on what weakens this run: few known facts, or wordings seen in detection."""
    said = []
    few = [
        f"{row['label'].replace('_', ' ')} ({row['known_detection']})"
        for row in results.summary["relations"]
        if row["ranked"] and row["known_detection"] < MIN_KNOWN
    ]
    if few:
        said.append(
            f"Ranked on fewer than {MIN_KNOWN} known facts: {', '.join(few)}. With so few, an average "
            "precision of 1 is nearly free, and the sets may be chance."
        )
    languages = results.summary["languages"]
    if len(languages) > 1:
        shares = ", ".join(f"{row['share']:.0%} in {row['language']}" for row in languages)
        said.append(
            f"Of the facts asked it knows {shares}. Relations are left out in a language in which it knows "
            f"too few; {_transfer(results)}."
        )
    if not results.effects["template_held_out"].all():
        said.append(
            "Some or all prompts use a wording that the neurons were found on, so the effect may be the "
            "wording's."
        )
    return said


def _recall_claim(overall: dict[str, dict[str, Any]]) -> str:
    """Returns what may be said of recall, which known facts must show by beating both checks (method 3)."""
    run = {name: overall[name] for name in _CHECKS if name in overall}
    if not run:
        return (
            "No set ranked on facts the model gets wrong was ablated beside it, so it is open "
            "whether these neurons serve recalling the answer or reading the question."
        )
    shown = " and ".join(f"{_CHECKS[name]} by {_effect(row)}" for name, row in run.items())
    claim = f"On the same prompts, sets ranked on known facts differ from sets ranked on {shown}."
    if not all(_less(row) for row in run.values()):
        return (
            f"{claim} The known sets are not shown to harm more than every check, so read them as "
            "the relation's question rather than its recall."
        )
    missing = [words for name, words in _CHECKS.items() if name not in run]
    if missing:
        return (
            f"{claim} They harm more; without the check on {missing[0]} this is not yet evidence of "
            "recall."
        )
    return f"{claim} They harm more than both checks, as neurons of recall would."


def _paired(summary: dict[str, Any], relation: str) -> dict[str, dict[str, Any]]:
    rows = summary.get("contrasts") or []
    return {row["against"]: row for row in rows if row["relation"] == relation}


def _costs(summary: dict[str, Any]) -> list[str]:
    """Returns sentences on the damage to neutral text, and on how stable the sets are."""
    said = []
    damage = {
        row["kind"]: row
        for row in summary.get("collateral") or []
        if row["dose"] == summary["dose"]
    }
    if "ranked" in damage:
        ranked, control = damage["ranked"], damage.get("control_contribution")
        beside = f"; one control draw of each, {control['kl']:.3f}" if control else ""
        said.append(
            f"On {ranked['tokens']} tokens of neutral text the sets change what the model expects by "
            f"{ranked['kl']:.3f} nats of KL a token{beside}."
        )
    halves = [
        row["share"]
        for row in summary.get("stability") or []
        if row["score"] == summary["score"] and row["what"] == "halves" and row["share"] is not None
    ]
    halves = [share for share in halves if not math.isnan(share)]
    if halves:
        said.append(
            f"Ranked on one half of the facts, {sum(halves) / len(halves):.0%} of a relation's set is found "
            "again on the other half."
        )
    return said


def _versatility(summary: dict[str, Any]) -> list[str]:
    """Returns a sentence on what sets ranked against neutral prompts share, beside what chance does."""
    totals = {row["pairs"]: row for row in _background(summary) if row["p_value"] is not None}
    named = {"relation": "of two relations", "language": "of a relation in two languages"}
    said = []
    for kind, words in named.items():
        if kind not in totals or math.isnan(totals[kind]["p_value"]):
            continue
        row = totals[kind]
        verdict = "more than" if row["p_value"] <= ALPHA else "not shown to be more than"
        said.append(
            f"Sets {words}, ranked against neutral prompts, share {row['shared']:,} neurons over "
            f"{row['n']:,} pair{'' if row['n'] == 1 else 's'}: {verdict} chance, which is "
            f"{row['expected']:,.3g} where the prompts' roles are dealt out anew (p = {row['p_value']:.2g})."
        )
    return said


def _background(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in summary.get("overlap") or [] if row["score"] == "background"]


def _less(row: dict[str, Any] | None) -> bool:
    """Whether a paired difference is shown to be below 0."""
    return row is not None and row["difference"] < 0 and _p(row) <= ALPHA


def _p(row: dict[str, Any]) -> float:
    """Returns the p-value of a paired difference's named test, or NaN if there is none."""
    p = row["p_value" if row["against"] == "control_contribution" else "p_sign_flip"]
    return float("nan") if p is None else float(p)


def _effect(row: dict[str, Any]) -> str:
    value = row["difference"] if "difference" in row else row["effect"]
    return f"{number(value)} (95% interval {number(row['low'])} to {number(row['high'])})"
