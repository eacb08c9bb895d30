"""Whole tables: does each table of a run hold every row that its options imply, and each once?

A row that is gone from a table is seen though its checksum was made anew; so is a table that is gone
with its checksum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from math import comb
from typing import Any

import pandas as pd

from relation_neurons.ablation.sets import Condition, plan_sweep
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.criteria import applicable_contrasts, applicable_families
from relation_neurons.ranking.detection_tasks import CONTRASTS, detection_tasks, rank_families
from relation_neurons.ranking.known import left_out_relations
from relation_neurons.relations.relation import Fact, Relation, Template
from relation_neurons.relations.shipped import load_background
from relation_neurons.relations.split import choose_templates
from relation_neurons.results.manifest import read_options
from relation_neurons.results.options import Options
from relation_neurons.results.plan import block_count, judged_dose, kept_neurons, planned_sets
from relation_neurons.results.results import Results
from relation_neurons.version import __version__

__all__ = ["CONDITION", "difference", "whole_tables"]

CONDITION = ["score", "ablated", "ablated_language", "kind", "dose", "draw"]
"""The columns of `effects` that name an ablated set."""
_FAMILY = ["score", "relation", "language"]


def whole_tables(results: Results) -> Iterator[tuple[str, str]]:
    """Gives what was looked at, and what is wrong with it.

    Raises:
        ResultsError: another version made the run, whose options are not this one's.
    """
    options = read_options(results.manifest)
    yield "prompts: every fact in every template", _prompts(results, options)
    yield "ranking: every relation and contrast, equally deep", _ranking(results, options)
    yield "null: every relation and contrast", _null(results, options)
    yield "stability: every comparison", _stability(results, options)
    if options.max_collateral is not None and results.collateral.empty:
        yield "collateral: every ablated set", "the table is missing"
        return
    dose = judged_dose(options, results.ranking, results.collateral)
    yield "collateral: every ablated set", _collateral(results, options)
    yield "effects: every ablated set", _sets(results, options, dose)
    yield "effects: every set is asked every held-out prompt once", _asked(results)
    yield (
        "blocks: every block is asked every prompt of its relation once",
        _blocks(results, options, dose),
    )


def difference(there: set[Any], expected: set[Any]) -> str:
    """Names one that is there and not expected, or one that is missing."""
    more, less = there - expected, expected - there
    if more:
        return f"{min(map(_text, more))} is there and not expected"
    return f"{min(map(_text, less))} is missing" if less else ""


def _text(one: Any) -> str:
    return " ".join(map(str, one)) if isinstance(one, tuple) else str(one)


def _twice(table: pd.DataFrame, names: list[str]) -> str:
    twice = table[table.duplicated(names)]
    return f"{_text(tuple(twice.iloc[0][names]))} stands there twice" if len(twice) else ""


def _rows(table: pd.DataFrame, names: list[str]) -> set[tuple[str, ...]]:
    """The values of some columns in each row, as text; none of a table that is not there."""
    if table.empty:
        return set()
    return set(table[names].astype(str).itertuples(index=False, name=None))


def _exactly(table: pd.DataFrame, names: list[str], expected: set[tuple[str, ...]]) -> str:
    """Whether a table has a row for each of these, and each once."""
    if table.empty:
        return "the table is missing" if expected else ""
    return difference(_rows(table, names), expected) or _twice(table, names)


def _prompts(results: Results, options: Options) -> str:
    frame = results.prompts
    gaps = set(range(len(frame))) - set(frame["prompt_id"])
    if gaps:
        return f"{len(frame):,} prompts, and number {min(gaps)} is none of them"
    wanted: set[tuple[str, ...]] = set()
    for one in results.manifest["relations"]:
        here = frame[(frame["relation"] == one["name"]) & (frame["language"] == one["language"])]
        facts = here[here["kind"] == "fact"]
        asked, stated = facts["subject"].nunique(), one["facts"] - options.shots
        name = f"{one['name']} ({one['language']})"
        if asked != stated:
            return f"{asked} facts of {name} are asked, not {stated}"
        detect, judge = _templates(one, options)
        subjects = {side: set(part["subject"]) for side, part in facts.groupby("side")}
        for side, templates in (("detection", detect), ("held_out", judge)):
            wanted |= set(product(["fact"], [name], subjects.get(side, set()), templates))
        invented = set(here.loc[here["kind"] == "nonsense", "subject"])
        if len(invented) != options.nonsense and (invented or all(t.isascii() for t in detect)):
            return f"{len(invented)} nonsense subjects of {name}, not {options.nonsense}"
        wanted |= set(product(["nonsense"], [name], invented, detect))
    neutral = frame[frame["kind"] == "background"]
    if results.manifest["versions"].get("relation_neurons") == __version__:
        for language in {one["language"] for one in results.manifest["relations"]}:
            found, shipped = int((neutral["language"] == language).sum()), load_background(language)
            if found != len(shipped):
                return f"{found} neutral prompts in {language}, not {len(shipped)}"
    named = frame.drop(index=neutral.index)
    named = named.assign(relation=named["relation"] + " (" + named["language"] + ")")
    return _exactly(named, ["kind", "relation", "subject", "template"], wanted)


def _templates(stated: dict[str, Any], options: Options) -> tuple[list[str], list[str]]:
    """The templates on which a relation is found and judged."""
    templates = tuple(Template(t["text"], t["form"], t["side"]) for t in stated["templates"])
    relation = Relation(stated["name"], (Fact("any", ("one",)),), templates)
    detect, judge = choose_templates(relation, options.hold_out_templates, options.single_template)
    return [t.text for t in detect], [t.text for t in judge]


def _families(results: Results, options: Options) -> set[tuple[str, ...]]:
    """Every contrast, relation and language that is ranked."""
    detection = results.prompts[results.prompts["side"] == "detection"].reset_index(drop=True)
    left_out = left_out_relations(results.recall, options.min_known)
    found, _ = rank_families(detection, results.recall, options.min_known, left_out)
    ranked = applicable_families(options.by, found, applicable_contrasts(options.by, CONTRASTS))
    return {found[i] for i in ranked}


def _ranking(results: Results, options: Options) -> str:
    frame, neurons = results.ranking.frame, len(results.ranking.neurons)
    missing = _families(results, options) - _rows(frame, _FAMILY)
    if missing:
        return f"{_text(min(missing))} is missing"
    depth = min(kept_neurons(options, neurons), neurons)
    ranks = frame.groupby(_FAMILY, observed=True)["rank"].agg(["size", "nunique", "min", "max"])
    wrong = ranks[(ranks != [depth, depth, 1, depth]).any(axis=1)]
    return "" if wrong.empty else f"{_text(wrong.index[0])} has not the ranks 1 to {depth:,}"


def _null(results: Results, options: Options) -> str:
    expected = set()
    if options.permutations and options.by == "average_precision":
        expected = {f for f in _families(results, options) if f[0] in ("specific", "background")}
    return _exactly(results.null, _FAMILY, expected)


def _stability(results: Results, options: Options) -> str:
    expected: set[tuple[str, ...]] = set()
    if options.repeats and options.by == "average_precision":
        detection = results.prompts[results.prompts["side"] == "detection"].reset_index(drop=True)
        known = detection["prompt_id"].map(results.recall.set_index("prompt_id")["known"])
        known_rows = known.fillna(False).to_numpy(bool)
        for family in detection_tasks(
            detection,
            known_rows,
            results.recall,
            ("specific", "background"),
            options.min_known,
        ):
            wordings = detection.loc[family.positive, "template"].nunique()
            others = detection.loc[family.negative, "relation"].nunique()
            counts = {
                "halves": options.repeats,
                "seeds": options.repeats,
                "templates": comb(wordings, 2),
                "relations": others if family.contrast == "specific" else 0,
            }
            expected |= {
                (family.contrast, family.relation, family.language, what, str(repeat))
                for what, count in counts.items()
                for repeat in range(count)
            }
    return _exactly(results.stability, [*_FAMILY, "what", "repeat"], expected)


def _labels(conditions: list[Condition]) -> set[tuple[str, ...]]:
    labelled = [condition.labels() for condition in conditions]
    return {tuple(str(labels[name]) for name in CONDITION) for labels in labelled}


def _collateral(results: Results, options: Options) -> str:
    planned = plan_sweep(
        results.ranking,
        resolve_doses(options.doses, len(results.ranking.neurons)),
        contrasts=(options.contrast,),
        control_draws=1,
        control_kinds=("control_contribution",),
        seed=options.seed,
    )
    return _exactly(results.collateral, CONDITION, _labels(planned))


def _sets(results: Results, options: Options, dose: int) -> str:
    there = results.effects[CONDITION].drop_duplicates()
    return _exactly(there, CONDITION, _labels(planned_sets(results.ranking, options, dose)))


def _held_out(results: Results) -> pd.DataFrame:
    """The prompts that ablation is judged on: those of the relations that have a ranking."""
    frame = results.prompts
    facts = frame[(frame["side"] == "held_out") & (frame["kind"] == "fact")]
    named = pd.MultiIndex.from_frame(facts[["relation", "language"]])
    return facts[named.isin(results.ranking.pairs)]


def _asked(results: Results) -> str:
    asked, effects = set(_held_out(results)["prompt_id"]), results.effects
    strange = set(effects["prompt_id"]) - asked
    if strange:
        return f"{min(strange)} is no held-out prompt of a ranked relation"
    plain = effects.astype(dict.fromkeys(CONDITION, str))
    sizes = plain.groupby(CONDITION)["prompt_id"].agg(["size", "nunique"])
    wrong = sizes[(sizes != len(asked)).any(axis=1)]
    return "" if wrong.empty else f"the rows of {_text(wrong.index[0])} are not whole"


def _blocks(results: Results, options: Options, dose: int) -> str:
    count, held_out = block_count(options, results.ranking, dose), _held_out(results)
    joint: list[Condition] = []
    if count > 1:
        joint = plan_sweep(
            results.ranking,
            [dose * count],
            contrasts=(options.contrast,),
            control_draws=min(options.draws, 1),
            control_kinds=("control_contribution",),
            seed=options.seed,
        )
    expected: set[tuple[str, ...]] = set()
    for whole, block in product(joint, range(count + 1)):
        (labels,) = _labels([replace(whole, dose=dose if block else whole.dose)])
        home = (held_out["relation"] == whole.ablated) & (held_out["language"] == whole.language)
        asked = held_out.loc[home, "prompt_id"]
        expected |= {(*labels, str(block), str(prompt)) for prompt in asked}
    return _exactly(results.blocks, [*CONDITION, "block", "prompt_id"], expected)
