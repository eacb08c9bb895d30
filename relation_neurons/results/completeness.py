"""Does each table of a run hold every row that its options imply, and each once?

A missing row is found even where the checksum was computed again after it went; so is a table that is
missing together with its checksum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from math import comb
from typing import Any

import pandas as pd

from relation_neurons.ablation.sets import Condition
from relation_neurons.ranking.detection_tasks import DetectionTask
from relation_neurons.relations.relation import Fact, Relation, Template
from relation_neurons.relations.shipped import load_background
from relation_neurons.relations.split import choose_templates
from relation_neurons.results.manifest import read_options
from relation_neurons.results.options import Options
from relation_neurons.results.plan import AblationPlan, Plan
from relation_neurons.results.results import Results
from relation_neurons.version import __version__

__all__ = ["CONDITION", "difference", "whole_tables"]

CONDITION = ["score", "ablated", "ablated_language", "kind", "dose", "draw"]
"""The columns of `effects` that name an ablated set."""
_TASK = ["score", "relation", "language"]
"""The columns that name a detection task."""


def whole_tables(results: Results) -> Iterator[tuple[str, str]]:
    """Yields what was checked, and what is wrong with it.

    Raises:
        ResultsError: another version made the run, with options that this version does not know.
    """
    options = read_options(results.manifest)
    plan = Plan(options, len(results.ranking.neurons))
    yield "prompts: every fact in every template", _prompts(results, options)
    yield "ranking: every relation and contrast, equally deep", _ranking(results, plan)
    yield "null: every relation and contrast", _null(results, plan)
    yield "stability: every comparison", _stability(results, plan)
    yield "overlap: every set of every deal, equally deep", _overlap(results, plan)
    if options.max_collateral is not None and results.collateral.empty:
        yield "collateral: every ablated set", "the table is missing"
        return
    ablations = plan.ablations(results.ranking, results.collateral)
    yield "collateral: every ablated set", _collateral(results, plan)
    yield "effects: every ablated set", _sets(results, ablations)
    yield "effects: every set is asked every held-out prompt once", _asked(results)
    yield (
        "home draws: as many as the answers take, on every prompt of their relation once",
        _home_draws(results, ablations),
    )
    yield (
        "blocks: every block is asked every prompt of its relation once",
        _blocks(results, ablations),
    )


def difference(there: set[Any], expected: set[Any]) -> str:
    """Names one that is present and not expected, or one that is missing."""
    more, less = there - expected, expected - there
    if more:
        return f"{min(map(_text, more))} is there and not expected"
    return f"{min(map(_text, less))} is missing" if less else ""


def _text(one: Any) -> str:
    return " ".join(map(str, one)) if isinstance(one, tuple) else str(one)


def _twice(table: pd.DataFrame, names: list[str]) -> str:
    twice = table[table.duplicated(names)]
    return f"{_text(tuple(twice.iloc[0][names]))} is there twice" if len(twice) else ""


def _rows(table: pd.DataFrame, names: list[str]) -> set[tuple[str, ...]]:
    """Returns the values of some columns in each row, as text; none where the table is missing."""
    if table.empty:
        return set()
    return set(table[names].astype(str).itertuples(index=False, name=None))


def _exactly(table: pd.DataFrame, names: list[str], expected: set[tuple[str, ...]]) -> str:
    """Says how a table differs from one row for each of these."""
    if table.empty:
        return "the table is missing" if expected else ""
    return difference(_rows(table, names), expected) or _twice(table, names)


def _prompts(results: Results, options: Options) -> str:
    frame = results.prompts
    gaps = set(range(len(frame))) - set(frame["prompt_id"])
    if gaps:
        return f"{len(frame):,} prompts, and number {min(gaps)} is not among them"
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
    """Returns the templates of the detection side and those of the held-out side."""
    templates = tuple(Template(t["text"], t["form"], t["side"]) for t in stated["templates"])
    relation = Relation(stated["name"], (Fact("any", ("one",)),), templates)
    detect, judge = choose_templates(relation, options.hold_out_templates, options.single_template)
    return [t.text for t in detect], [t.text for t in judge]


def _detection(results: Results) -> pd.DataFrame:
    return results.prompts[results.prompts["side"] == "detection"].reset_index(drop=True)


def _keys(tasks: Iterable[DetectionTask]) -> set[tuple[str, ...]]:
    return {task.key for task in tasks}


def _ranking(results: Results, plan: Plan) -> str:
    frame, depth = results.ranking.frame, plan.kept
    expected = _keys(plan.ranked_tasks(_detection(results), results.recall))
    missing = expected - _rows(frame, _TASK)
    if missing:
        return f"{_text(min(missing))} is missing"
    ranks = frame.groupby(_TASK, observed=True)["rank"].agg(["size", "nunique", "min", "max"])
    wrong = ranks[(ranks != [depth, depth, 1, depth]).any(axis=1)]
    return "" if wrong.empty else f"{_text(wrong.index[0])} does not have the ranks 1 to {depth:,}"


def _null(results: Results, plan: Plan) -> str:
    expected: set[tuple[str, ...]] = set()
    if "null" in plan.evidence:
        expected = _keys(plan.evidence_tasks(_detection(results), results.recall))
    return _exactly(results.null, _TASK, expected)


def _stability(results: Results, plan: Plan) -> str:
    expected: set[tuple[str, ...]] = set()
    if "stability" in plan.evidence:
        detection = _detection(results)
        for task in plan.evidence_tasks(detection, results.recall):
            wordings = detection.loc[task.positive, "template"].nunique()
            others = detection.loc[task.negative, "relation"].nunique()
            counts = {
                "halves": plan.options.repeats,
                "seeds": plan.options.repeats,
                "templates": comb(wordings, 2),
                "relations": others if task.contrast == "specific" else 0,
            }
            expected |= {
                (*task.key, what, str(repeat))
                for what, count in counts.items()
                for repeat in range(count)
            }
    return _exactly(results.stability, [*_TASK, "what", "repeat"], expected)


def _overlap(results: Results, plan: Plan) -> str:
    expected: set[tuple[str, ...]] = set()
    if "overlap" in plan.evidence:
        deals = range(1, plan.options.overlap_deals + 1)
        tasks = _keys(plan.evidence_tasks(_detection(results), results.recall))
        expected = {(*task, str(deal)) for task, deal in product(tasks, deals)}
    table = results.overlap
    if table.empty:
        return _exactly(table, [*_TASK, "deal"], expected)
    names = [*_TASK, "deal", "rank"]
    twice = _twice(table, names) or _twice(table, [*names[:-1], "layer", "neuron"])
    return twice or _exactly(table[table["rank"] == plan.dealt], names[:-1], expected)


def _labels(conditions: list[Condition]) -> set[tuple[str, ...]]:
    labelled = [condition.labels() for condition in conditions]
    return {tuple(str(labels[name]) for name in CONDITION) for labels in labelled}


def _collateral(results: Results, plan: Plan) -> str:
    return _exactly(results.collateral, CONDITION, _labels(plan.collateral_sets(results.ranking)))


def _sets(results: Results, ablations: AblationPlan) -> str:
    there = results.effects[CONDITION].drop_duplicates()
    return _exactly(there, CONDITION, _labels(ablations.effects))


def _held_out(results: Results) -> pd.DataFrame:
    """Returns the prompts that ablation is judged on: those of the relations that have a ranking."""
    frame = results.prompts
    facts = frame[(frame["side"] == "held_out") & (frame["kind"] == "fact")]
    named = pd.MultiIndex.from_frame(facts[["relation", "language"]])
    return facts[named.isin(results.ranking.pairs)]


def _asked(results: Results) -> str:
    asked, effects = set(_held_out(results)["prompt_id"]), results.effects
    strange = set(effects["prompt_id"]) - asked
    if strange:
        return f"{min(strange)} is not a held-out prompt of a ranked relation"
    plain = effects.astype(dict.fromkeys(CONDITION, str))
    sizes = plain.groupby(CONDITION)["prompt_id"].agg(["size", "nunique"])
    wrong = sizes[(sizes != len(asked)).any(axis=1)]
    return "" if wrong.empty else f"the rows of {_text(wrong.index[0])} are not whole"


def _home_draws(results: Results, ablations: AblationPlan) -> str:
    """Draws again for whatever the tables leave unclear, and compares."""
    held_out, there = _held_out(results), results.home_draws
    if there.empty:
        there = results.effects.iloc[:0]
    where = ["prompt_id", "relation", "language"]
    rows = list(there[[*CONDITION, *where]].astype(str).itertuples(index=False, name=None))
    drawn, expected, known = set(rows), set[tuple[str, ...]](), there.iloc[:0]
    while conditions := ablations.next_home_draws(results.effects, known):
        wanted = set[tuple[str, ...]]()
        for one in conditions:
            (labels,) = _labels([one])
            home = (held_out["relation"] == one.ablated) & (held_out["language"] == one.language)
            asked = held_out.loc[home, where].astype(str)
            wanted |= {(*labels, *row) for row in asked.itertuples(index=False, name=None)}
        again = wanted <= expected
        expected |= wanted
        if again or not wanted <= drawn:
            break  # what is drawn next rests on draws that are missing
        known = pd.concat([known, there[[row in wanted for row in rows]]])
    return _exactly(there, [*CONDITION, *where], expected)


def _blocks(results: Results, ablations: AblationPlan) -> str:
    held_out, expected = _held_out(results), set[tuple[str, ...]]()
    for whole, block in product(ablations.joint_blocks, range(ablations.block_count + 1)):
        (labels,) = _labels([replace(whole, dose=ablations.dose if block else whole.dose)])
        home = (held_out["relation"] == whole.ablated) & (held_out["language"] == whole.language)
        asked = held_out.loc[home, "prompt_id"]
        expected |= {(*labels, str(block), str(prompt)) for prompt in asked}
    return _exactly(results.blocks, [*CONDITION, "block", "prompt_id"], expected)
