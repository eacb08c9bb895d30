"""Tests among random sets, many times over on tables: nothing from nothing, something from something.

No model is run: a cell's effects are dealt out anew from the random sets of the reference run, or drawn
from tails that are known. What is judged is judged by the package, and drawn for as its plan draws.

- dealt anew: the control sets of the reference run, in the place of ranked sets and of their controls.
- tails: effects of random sets with other tails; the test over facts, which can but take claims away, is
  left out.
- harm: facts of dealt sets are lost, and the cells that are found counted, with what that costs.
- overlap: sets that take much of a layer, whose draws resemble one another.
- trend: random sets in the place of ranked ones, over doses.

Usage: python scripts/draw_calibration.py [--runs 300] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import pandas as pd
from calibration_tables import write
from scipy import stats

import relation_neurons as rn
from relation_neurons.analysis.cell_tests import (
    LARGEST_OVERLAP,
    false_discovery,
    judge_all,
    judge_cells,
)
from relation_neurons.analysis.draw_tests import (
    ALPHA,
    LEAST_DRAWS,
    all_relations_p,
    away_p,
    deflated,
    draws_needed,
    inflation,
    least_p,
    mid_p,
    overlap_inflation,
    rank_p,
    sequential_p,
)
from relation_neurons.analysis.resampling import by_fact, sign_flip_test
from relation_neurons.analysis.trend import trends
from relation_neurons.results.options import make_options
from relation_neurons.results.plan import MOST_HOME_DRAWS, AblationPlan, Plan, next_draws

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
CONTRAST, CONTROL = "specific", "control_contribution"
DRAWS = make_options().judged_draws
"""Random sets that are judged on all prompts, as in a default run."""
FACTS = 8
"""Facts of a constructed cell, all with the same change: the test over facts then gives p = 1/256."""

TAILS: dict[str, Callable[[np.random.Generator, Any], np.ndarray]] = {
    "Gaussian": lambda rng, shape: 0.05 * rng.standard_normal(shape),
    "Student's t, 3 degrees of freedom": lambda rng, shape: 0.05 * rng.standard_t(3, shape),
    "one set in 80 at \N{MINUS SIGN}0.5": lambda rng, shape: (
        0.02 * rng.standard_normal(shape) - 0.5 * (rng.random(shape) < 1 / 80)
    ),
    "lognormal": lambda rng, shape: -0.05 * np.exp(rng.standard_normal(shape)),
}


More = Callable[[int, int], np.ndarray]
"""Effects at home of the first so many further draws of a relation, given its place."""


def drawn_until_clear(
    judge: Callable[[pd.DataFrame], pd.DataFrame],
    draw: Callable[[str, range], pd.DataFrame],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draws at home as `AblationPlan.next_home_draws` does, whatever the quantity.

    Args:
        judge: returns the matrix, given the table `home_draws` so far.
        draw: returns the rows of `home_draws` of a relation and of some numbers of draws.

    Returns:
        The last matrix, and the table `home_draws`.
    """
    home_draws = pd.DataFrame()
    while True:
        matrix = judge(home_draws)
        home = matrix[matrix["family"] == "home"]
        rounds = []
        for cell, count in zip(home.itertuples(), next_draws(home), strict=True):
            if count > 0:
                rounds.append(draw(cell.ablated, range(cell.draws, cell.draws + count)))
        if not rounds:
            return matrix, home_draws
        home_draws = pd.concat([home_draws, *rounds], ignore_index=True)


# --- random sets of the reference run ---


class Pool(NamedTuple):
    """What the random sets of a run do to its held-out prompts at the judged dose."""

    names: list[str]
    changes: np.ndarray
    """Net flips, sets by prompts."""
    home: np.ndarray
    """The relation of each prompt, as a place in `names`."""
    facts: np.ndarray

    def means(self, changes: np.ndarray) -> np.ndarray:
        """The mean change of each relation's prompts, for each set."""
        return np.stack(
            [changes[..., self.home == j].mean(axis=-1) for j in range(len(self.names))], axis=-1
        )


@cache
def reference_rows() -> pd.DataFrame:
    """The contribution-matched control of the reference run."""
    effects = rn.load_results(REFERENCE).effects
    return effects[(effects["score"] == CONTRAST) & (effects["kind"] == CONTROL)]


@cache
def reference_pool() -> Pool:
    """The random sets of all relations at the dose that has the most of them."""
    rows = reference_rows()
    rows = rows[rows["dose"] == rows.groupby("dose")["draw"].nunique().idxmax()]
    change = rows["correct"].astype(float) - rows["correct_intact"].astype(float)
    sets = [rows["ablated"].astype(str), rows["draw"]]
    table = change.groupby([*sets, rows["prompt_id"]]).mean().unstack("prompt_id").dropna()
    once = rows.drop_duplicates("prompt_id").set_index("prompt_id").loc[table.columns]
    relation = once["relation"].astype(str)
    names = sorted(set(relation))
    home = relation.map(names.index).to_numpy()
    facts = (relation + "/" + once["fact"].astype(str)).to_numpy(str)
    return Pool(names, table.to_numpy(), home, facts)


def some_relations(pool: Pool, chosen: Sequence[int]) -> Pool:
    """The prompts of some relations alone."""
    kept = np.isin(pool.home, chosen)
    home = np.searchsorted(np.sort(chosen), pool.home[kept])
    names = [pool.names[j] for j in sorted(chosen)]
    return Pool(names, pool.changes[:, kept], home, pool.facts[kept])


class Judged(NamedTuple):
    """What is claimed of sets in the place of ranked ones."""

    cells: pd.DataFrame | None
    """From `judge_cells`; None where rank alone claims no cell."""
    claims: Claims
    """By rank alone."""
    p_all: float
    by_t: bool
    """Whether a t-test claims any cell."""
    rows: int
    """Rows that the draws at home cost beyond those that are judged on all prompts."""

    @property
    def any(self) -> bool:
        return self.cells is not None and bool(self.cells["significant"].any())


def judge_dealt(pool: Pool, dealt: Dealt, seed: int, *, whole: bool = False) -> Judged:
    """Judges sets among others, with draws at home until the answer is clear.

    Args:
        pool: whose prompts and facts the changes are of.
        dealt: the sets.
        seed: of the sign flips and deals.
        whole: whether cells are tested over facts, too, where rank alone claims none: tests over facts take
            claims away and add none.
    """
    names, given = pool.names, dealt.changes.shape[1] - 1
    means = pool.means(dealt.changes) + dealt.shift
    paired = paired_table(pool, dealt)
    ranked, base = means[:, 0], means[:, 1:]
    at_home = paired[paired["ablated"] == paired["relation"]]
    flips = np.array(
        [
            sign_flip_test(
                by_fact(part["correct_difference"].to_numpy(), part["fact"]),
                alternative="less",
                seed=seed,
            )
            for _, part in at_home.groupby("ablated", sort=True)
        ]
    )
    claims = judge_ranks(ranked, base, dealt.more, seed, flips=flips)
    further = [dealt.more(i, count - given) for i, count in enumerate(claims.judged)]
    draws = draw_table(names, base)
    cells = None
    if whole or claims.any:
        later = [home_draw_table(names[i], given, one) for i, one in enumerate(further) if len(one)]
        cells = judge_cells(paired, draws, pd.concat(later) if later else None, seed=seed)
    home = pd.DataFrame({"ablated": names, "family": "home", "inflation": claims.inflation})
    rows = (claims.judged - given) @ np.bincount(pool.home, minlength=len(names))
    p_all = judge_all(paired, draws, home, seed=seed).p_value
    return Judged(cells, claims, p_all, claimed_by_t(ranked, base), int(rows))


def paired_table(pool: Pool, dealt: Dealt) -> pd.DataFrame:
    """The table that `judge_cells` takes: each prompt under each relation's set and the mean of its draws.

    The test over facts takes the differences, which have no shift.
    """
    names, prompts = np.array(pool.names), len(pool.home)
    ranked, control = dealt.changes[:, 0], dealt.changes[:, 1:].mean(axis=1)
    shift = dealt.shift[:, 0][:, pool.home]
    return pd.DataFrame(
        {
            "ablated": np.repeat(names, prompts),
            "relation": np.tile(names[pool.home], len(names)),
            "fact": np.tile(pool.facts, len(names)),
            "correct_change": (ranked + shift).ravel(),
            "correct_control": control.ravel(),
            "correct_difference": (ranked - control).ravel(),
        }
    )


def draw_table(names: Sequence[str], effects: np.ndarray) -> pd.DataFrame:
    """The table of `control_draw_means`, from the effect of each (relation's draw, judged relation)."""
    i, d, j = (axis.ravel() for axis in np.indices(effects.shape))
    table = pd.DataFrame({"ablated": np.array(names)[i], "relation": np.array(names)[j], "draw": d})
    return table.assign(change=effects.ravel(), draw_overlap=np.nan)


def home_draw_table(name: str, first: int, effects: np.ndarray) -> pd.DataFrame:
    """The same of further draws of one relation at home."""
    own = {"ablated": name, "relation": name, "draw": range(first, first + len(effects))}
    return pd.DataFrame({**own, "change": effects, "draw_overlap": np.nan})


def away_mid_p(ranked: np.ndarray, base: np.ndarray) -> np.ndarray:
    """What the inflation is estimated from."""
    count = len(ranked)
    if base.shape[1] < LEAST_DRAWS:
        return np.empty(0)
    cells = [(i, j) for i in range(count) for j in range(count) if i != j]
    return np.array([mid_p(ranked[i, j], base[i, :, j]) for i, j in cells])


def claimed_by_t(ranked: np.ndarray, base: np.ndarray) -> bool:
    """Whether Student's t claims any cell, for comparison: what an earlier version took in place of the rank.

    Each cell's effect is held against the spread of its draws, whose variance is moderated by that of the
    other sets on the same relation (4 degrees of freedom); with genomic control, and Benjamini-Hochberg
    over all cells.
    """
    count, draws = len(ranked), base.shape[1]
    own = base.var(axis=1, ddof=1)
    prior, freedom = min(4, (count - 1) * (draws - 1)), draws - 1
    spread = (prior * own.mean(axis=0) + freedom * own) / (prior + freedom) * (1 + 1 / draws)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num((ranked - base.mean(axis=1)) / np.sqrt(spread))
    p = 2 * stats.t.sf(np.abs(t), prior + freedom)
    factor = inflation(p[~np.eye(count, dtype=bool)])
    p = 2 * stats.t.sf(np.abs(t) / np.sqrt(factor), prior + freedom)
    return bool((false_discovery(pd.Series(p.ravel())) <= ALPHA).any())


def dealt_runs(runs: int, relations: int | None = None) -> Iterator[dict[str, Any]]:
    """Random sets of the reference run in the place of ranked ones: each is drawn from all of them.

    Args:
        runs: how often they are dealt.
        relations: how many are there, another choice in each run; all by default.
    """
    whole = reference_pool()
    for run in range(runs):
        rng = np.random.default_rng([run, 0x6F6E6365])
        chosen = rng.permutation(len(whole.names))[:relations]
        pool = some_relations(whole, chosen) if relations else whole
        found = judge_dealt(pool, _dealt(pool, run, 0x6465616C), run)
        yield {
            "any cell": found.any,
            "over all relations": bool(found.p_all <= ALPHA),
            "any cell by t-test": found.by_t,
            "rows at home": found.rows,
        }


class Dealt(NamedTuple):
    """Random sets in the place of ranked ones and of their draws."""

    changes: np.ndarray
    """Change of each prompt under each relation's set, then under the draws of its control."""
    shift: np.ndarray
    """Less than a prompt, of the mean at home: a set that is drawn twice has no tie with itself there."""
    more: More


def _dealt(pool: Pool, *key: int) -> Dealt:
    """Deals a ranked set and a default run's draws to each relation, and draws at home where asked."""
    effects, rng = pool.means(pool.changes), np.random.default_rng(key)
    count = len(pool.names)
    changes = pool.changes[rng.integers(len(effects), size=(count, 1 + DRAWS))]
    step = 0.5 / np.bincount(pool.home, minlength=count)
    shift = rng.uniform(-step, step, size=(count, 1 + DRAWS, count)) * np.eye(count)[:, None]

    def more(i: int, n: int) -> np.ndarray:
        own = np.random.default_rng([*key, i])
        drawn = effects[own.integers(len(effects), size=MOST_HOME_DRAWS), i]
        return (drawn + own.uniform(-step[i], step[i], size=MOST_HOME_DRAWS))[:n]

    return Dealt(changes, shift, more)


def harm_runs(runs: int, lost: float, planted: int) -> Iterator[dict[str, Any]]:
    """The same with a share of the facts lost at home, of one relation or of several.

    Args:
        runs: one relation after another is the first that loses facts.
        lost: share of its facts; what the random set does to the others stays.
        planted: how many relations.
    """
    pool = reference_pool()
    count = len(pool.names)
    for run in range(runs):
        dealt = _dealt(pool, run, planted, 0x6861726D)
        rng = np.random.default_rng([run, planted, 0x6C6F7374])
        places = [(run + k) % count for k in range(planted)]
        for i in places:
            facts = np.unique(pool.facts[pool.home == i])
            gone = rng.permutation(facts)[: round(lost * len(facts))]
            dealt.changes[i, 0, np.isin(pool.facts, gone)] = -1.0
        found = judge_dealt(pool, dealt, run, whole=True)
        names = [pool.names[i] for i in places]
        cells = found.cells.set_index(["ablated", "relation"])
        own = cells.loc[[(name, name) for name in names]]
        yield {
            "cells": own["significant"].mean(),
            "over all relations": bool(found.p_all <= ALPHA),
            "any other cell": bool(cells.drop(own.index)["significant"].any()),
            "draws": int(own["draws"].max()),
            "rows at home": found.rows,
            "planted": names[0],
        }


# --- tails that are known ---


class Claims(NamedTuple):
    """What rank alone claims of constructed effects."""

    home: np.ndarray
    """Whether each cell at home is claimed."""
    p_home: np.ndarray
    p_all: float
    away: np.ndarray
    """Whether each cell is claimed away from home; not those at home."""
    inflation: float
    draws: np.ndarray
    """Draws that each cell at home was read to."""
    judged: np.ndarray
    """Draws that it was judged under."""

    @property
    def any(self) -> bool:
        return bool(self.home.any() or self.away.any())


def judge_ranks(
    ranked: np.ndarray,
    base: np.ndarray,
    more: More | None,
    seed: int,
    *,
    flips: np.ndarray | None = None,
    deals: int = 99_999,
) -> Claims:
    """What `judge_cells` claims where every fact of a cell changes alike, some fifty times as fast.

    A test compares it with `interference_matrix`.

    Args:
        ranked: effect of each relation's set on each relation.
        base: the same under each draw of its control.
        more: further draws at home, or None where there are none.
        seed: of the deals.
        flips: p-values of the test over facts at home; left out by default, which can but add claims.
        deals: of the test over all relations.
    """
    count, given = len(ranked), base.shape[1]
    factor = inflation(away_mid_p(ranked, base))
    facts = np.zeros(count) if flips is None else flips
    later = [np.empty(0)] * count
    while True:
        found = [
            sequential_p(ranked[i, i], np.append(base[i, :, i], later[i])) for i in range(count)
        ]
        p = np.array([deflated(one[0], factor) for one in found])
        draws = np.array([one[1] for one in found])
        least = np.array([least_p(n, factor=factor) for n in draws.tolist()])
        claimed = false_discovery(pd.Series(np.maximum(p, facts))) <= ALPHA + 1e-12
        claimed &= least * count <= ALPHA + 1e-12
        needed = np.maximum(draws_needed(count, factor=factor) - draws, 0)
        clear = (facts > ALPHA) | np.array([one[2] for one in found])
        before = later
        if more:
            home = pd.DataFrame({"draws": draws, "draws_needed": np.where(clear, 0, needed)})
            counts = next_draws(home.assign(p_sign_flip=facts, p_value=p, inflation=factor))
            have = [len(one) for one in later]
            later = [more(i, have[i] + n) if n else later[i] for i, n in enumerate(counts)]
        if list(map(len, before)) == list(map(len, later)):
            break  # the answers are clear, or there are no more draws
    judged = given + np.array([len(one) for one in later])
    own = [base[i, :, i] for i in range(count)]
    p_all = p[0]
    if count > 1:
        p_all = deflated(all_relations_p(np.diagonal(ranked), own, deals=deals, seed=seed), factor)
    away = np.zeros((count, count), dtype=bool)
    shown = claimed.any() or p_all <= ALPHA
    if shown and count > 1 and given >= draws_needed(1, factor=factor, sides=2):
        apart = np.where(np.eye(count, dtype=bool), np.nan, ranked)
        drawn = [np.where(np.isnan(apart[i]), np.nan, base[i]) for i in range(count)]
        step = away_p(apart, drawn, seed=seed).adjusted
        adjusted = [deflated(one, factor, sides=2) for one in step.ravel()]
        away = np.array(adjusted).reshape(step.shape) <= ALPHA + 1e-12
    return Claims(claimed, p, p_all, away, factor, draws, judged)


def tail_runs(
    tail: str, relations: int, draws: int, runs: int, further: bool = True, harmed: bool = False
) -> Iterator[dict[str, Any]]:
    """Ranked sets that are one more draw of their control, from a tail.

    Args:
        tail: one of `TAILS`.
        relations: how many.
        draws: judged on all prompts.
        runs: how often.
        further: whether more are drawn at home.
        harmed: whether sets do great harm at home, so that cells away from home may be claimed.
    """
    for run in range(runs):
        ranked, base, more = constructed(tail, relations, draws, run)
        if harmed:
            np.fill_diagonal(ranked, -1e3)
        found = judge_ranks(ranked, base, more if further else None, run, deals=9_999)
        yield {
            "any cell": found.any,
            "any cell away": bool(found.away.any()),
            "over all relations": bool(found.p_all <= ALPHA),
            "any cell by t-test": claimed_by_t(ranked, base),
        }


def constructed(
    tail: str, relations: int, draws: int, run: int
) -> tuple[np.ndarray, np.ndarray, More]:
    """Effects of ranked sets and of their controls, and what draws more of those at home."""
    key = [run, relations, draws, list(TAILS).index(tail), 0x7461696C]
    rng = np.random.default_rng(key)
    effects = TAILS[tail](rng, (relations, 1 + draws, relations))

    def more(i: int, n: int) -> np.ndarray:
        return TAILS[tail](np.random.default_rng([*key, i]), MOST_HOME_DRAWS)[:n]

    return effects[:, 0], effects[:, 1:], more


def effects_table(sets: np.ndarray, names: Sequence[str], home: np.ndarray) -> pd.DataFrame:
    """The table `effects` of changes of margins, as a sweep of one dose would leave it.

    Args:
        sets: change of each prompt under each relation's set, then under the draws of its control.
        names: of the relations.
        home: the relation of each prompt.
    """
    i, d, k = (axis.ravel() for axis in np.indices(sets.shape))
    kind = np.where(d == 0, "ranked", CONTROL)
    return _rows(names, i, kind, np.maximum(d - 1, 0), home[k], k, sets.ravel())


def home_table(
    name: str, draws: range, effects: np.ndarray, names: Sequence[str], home: np.ndarray
) -> pd.DataFrame:
    """The table `home_draws` of one relation, each draw with the same change of all prompts."""
    i = list(names).index(name)
    d, k = (axis.ravel() for axis in np.meshgrid(draws, np.flatnonzero(home == i), indexing="ij"))
    own = np.full(len(d), i)
    change = np.repeat(effects, int((home == i).sum()))
    return _rows(names, own, np.full(len(d), CONTROL), d, own, k, change)


def _rows(
    names: Sequence[str],
    ablated: np.ndarray,
    kind: np.ndarray,
    draw: np.ndarray,
    relation: np.ndarray,
    prompt: np.ndarray,
    change: np.ndarray,
) -> pd.DataFrame:
    labels = np.array(names)
    table = {"ablated": labels[ablated], "ablated_language": "en", "kind": kind, "score": CONTRAST}
    table |= {"dose": 1, "draw": draw, "prompt_id": prompt, "relation": labels[relation]}
    table |= {"language": "en", "fact": prompt, "correct_intact": True, "correct": True}
    return pd.DataFrame(table | {"margin_intact": 0.0, "margin": change})


# --- sets that take much of a layer ---


def overlap_runs(
    share: float, runs: int, heavy: bool, *, width: int = 600, draws: int = MOST_HOME_DRAWS
) -> dict[str, float]:
    """Random sets of a layer among draws from the rest of it, where effects add up over neurons.

    Args:
        share: of the layer that a set takes.
        runs: layers.
        heavy: whether neurons' effects are lognormal (a fifth of them helpful), or normal.
        width: neurons of the layer.
        draws: of each set.

    Returns:
        overlap (of the draws), inflation, and the share of sets with a p-value up to
        5% and up to 0.5%: as ranked, and as the package deflates it (NaN where it gives none).
    """
    rng = np.random.default_rng([int(100 * share), heavy, 0x6F766572])
    size, p = round(share * width), np.empty(runs)
    for run in range(runs):
        effects = rng.standard_normal(width)
        if heavy:
            effects = -np.exp(effects) * rng.choice([-1, 1], width, p=(0.2, 0.8))
        effects = rng.permutation(effects)
        sums = _sums_of_draws(effects[size:], size, draws, int(rng.integers(2**31)))
        p[run] = rank_p(effects[:size].sum(), sums)
    overlap = size / (width - size)  # of draws from the rest, on average
    given = overlap <= LARGEST_OVERLAP
    factor = overlap_inflation(overlap) if given else float("nan")
    judged = np.array([deflated(one, factor) for one in p])
    levels = {"5%": 0.05, "0.5%": 0.005}
    return {
        "overlap": overlap,
        "inflation": factor,
        **{f"p to {name}, as ranked": float((p <= at).mean()) for name, at in levels.items()},
        **{
            f"p to {name}": float((judged <= at).mean()) if given else float("nan")
            for name, at in levels.items()
        },
    }


@numba.njit
def _sums_of_draws(rest: np.ndarray, size: int, draws: int, seed: int) -> np.ndarray:
    np.random.seed(seed)  # noqa: NPY002 - numba's own generator
    rest, sums = rest.copy(), np.zeros(draws)
    for draw in range(draws):
        for k in range(size):
            other = np.random.randint(k, len(rest))  # noqa: NPY002
            rest[k], rest[other] = rest[other], rest[k]
            sums[draw] += rest[k]
    return sums


# --- the trend over doses ---


def trend_runs(runs: int, least: int = 3) -> Iterator[dict[str, Any]]:
    """Random sets of the reference run, at all doses, in the place of ranked ones and of their controls.

    Every set stands in one place, with as many relations as have `least` sets each.
    """
    rows = reference_rows()
    rows = rows[rows["draw"] < rows.groupby("dose")["draw"].nunique().min()]
    kept = ["ablated", "draw", "dose", "prompt_id"]
    rows = rows.assign(ablated=rows["ablated"].astype(str), relation=rows["relation"].astype(str))
    rows = rows.sort_values(kept).reset_index(drop=True)
    blocks = [part.index.to_numpy() for _, part in rows.groupby(["ablated", "draw"])]
    names = sorted(set(rows["relation"]))
    count = min(len(names), len(blocks) // least)
    each = len(blocks) // count
    for run in range(runs):
        rng = np.random.default_rng([run, 0x7472656E])
        chosen = rng.permutation(names)[:count]
        order = rng.permutation(len(blocks))[: count * each].reshape(count, each)
        parts = []
        for name, own in zip(chosen, order, strict=True):
            for place, block in enumerate(own):
                kind, draw = ("ranked", 0) if place == 0 else (CONTROL, place - 1)
                part = rows.loc[blocks[block]]
                part = part[part["relation"].isin(chosen)]
                parts.append(part.assign(ablated=name, kind=kind, draw=draw))
        found = trends(pd.concat(parts, ignore_index=True), contrast=CONTRAST, seed=run)
        overall = found[found["ablated"] == "all relations"].set_index("where")["p_trend"]
        yield {where: bool(overall[where] <= ALPHA) for where in ("home", "elsewhere")} | {
            "relations": count,
            "draws": each - 1,
            "tested": bool(overall.notna().all()),
        }


# --- what it costs, and the tables ---

Jobs = Callable[[Sequence[tuple[Any, ...]]], list[pd.DataFrame]]
"""Runs studies, each a function and its arguments, and returns the table of each."""


def rows_of_a_run(prompts: int = 40) -> tuple[int, int]:
    """Rows of a default run on the reference run's model and relations: of the sweep, and of a draw at home.

    Args:
        prompts: held-out ones of each relation, in place of the reference run's own numbers.
    """
    ranking = rn.load_results(REFERENCE).ranking
    plan = Plan(make_options(), len(ranking.neurons))
    planned = AblationPlan(plan, ranking, plan.middle_dose)
    relations = len(ranking.relations)
    return len(planned.effects) * prompts * relations, prompts * relations


def cost_table() -> pd.DataFrame:
    """Most rows of a default run, with and without the draws at home."""
    swept, each = rows_of_a_run()
    relations = len(reference_pool().names)
    needed = draws_needed(relations)
    table = [("draws on all prompts alone (home_draws=0)", DRAWS, swept)]
    for what, draws in (
        ("until one relation alone can be significant, at most", needed),
        ("random sets that differ less than ranked ones (inflation), at most", MOST_HOME_DRAWS),
    ):
        table.append((what, draws, swept + (draws - DRAWS) * each))
    return pd.DataFrame(table, columns=["what", "draws", "rows"])


SHARE = {
    "any cell": "any cell claimed",
    "over all relations": "harm claimed over all relations",
    "any cell by t-test": "any cell claimed by t-test",
}


def nothing_table(runs: int, jobs: Jobs) -> pd.DataFrame:
    """What is claimed where there is nothing."""
    pool = reference_pool()
    relations, sets = len(pool.names), len(pool.changes)
    studies: list[tuple[str, int, int, Any]] = [
        *(
            (f"{sets} sets dealt anew", few, DRAWS, (dealt_runs, runs, few))
            for few in (relations, 4, 2)
        ),
    ]
    often = {count: 32 * runs // count for count in (8, 4, 2)}  # a run of few relations is cheap
    for tail in TAILS:
        for count, draws in TAIL_SIZES:
            studies.append((tail, count, draws, (tail_runs, tail, count, draws, often[count])))
    for tail in TAILS:
        how = (tail_runs, tail, 8, DRAWS, often[8], False)
        studies.append((f"{tail}, no draws at home", 8, DRAWS, how))
    found = jobs([study[3] for study in studies])
    return pd.DataFrame(
        {
            "what": what,
            "relations": count,
            "draws": draws,
            "runs": len(table),
            **{name: table[column].mean() for column, name in SHARE.items()},
        }
        for (what, count, draws, _), table in zip(studies, found, strict=True)
    )


def away_table(runs: int, jobs: Jobs) -> pd.DataFrame:
    """What is claimed away from home where there is harm at home and nothing else."""
    studies = [(tail_runs, tail, 8, 59, runs, False, True) for tail in TAILS]
    return pd.DataFrame(
        {
            "what": f"{study[1]}, harm at home",
            "relations": 8,
            "draws": 59,
            "runs": runs,
            "any cell away from home claimed": table["any cell away"].mean(),
        }
        for study, table in zip(studies, jobs(studies), strict=True)
    )


TAIL_SIZES = ((8, 10), (8, 2), (8, 4), (8, 19), (4, 10), (2, 10))
"""Relations, and draws that are judged on all prompts."""


def harm_table(runs: int, jobs: Jobs) -> pd.DataFrame:
    """What is found where there is harm, and what that costs in rows beyond the draws on all prompts."""
    count = len(reference_pool().names)
    few, one = max(runs // 4, 1), "half of the facts of one relation"
    studies = {
        "nothing": (dealt_runs, runs),
        one: (harm_runs, runs, 0.5, 1),
        "half of the facts of every relation": (harm_runs, few, 0.5, count),
        "a tenth of the facts of every relation": (harm_runs, few, 0.1, count),
    }
    rows = []
    for what, table in zip(studies, jobs(list(studies.values())), strict=True):
        parts = [(what, table)]
        if what == one:
            parts += [(f"... {name}", part) for name, part in table.groupby("planted")]
        for label, part in parts:
            row = {"what": label, "runs": len(part)}
            if "cells" in part:
                row |= {"cells found": part["cells"].mean()}
                row |= {"other cells claimed": part["any other cell"].mean()}
            row |= {"found over all relations": part["over all relations"].mean()}
            row |= {"draws": part["draws"].mean()} if "draws" in part else {}
            rows.append(row | {"rows": part["rows at home"].mean()})
    return pd.DataFrame(rows)


def overlap_table(runs: int, jobs: Jobs) -> pd.DataFrame:
    """What p-values of sets that take much of a layer are worth."""
    studies = {
        f"{name}, {share:.0%} of the layer": (overlap_runs, share, runs, heavy)
        for name, heavy in (("normal", False), ("lognormal", True))
        for share in (0.05, 0.1, 0.15, 0.2, 0.4, 0.48)
    }
    found = jobs(list(studies.values()))
    return pd.DataFrame(
        {"what": what, "runs": runs, **table.iloc[0].to_dict()}
        for what, table in zip(studies, found, strict=True)
    )


def trend_table(runs: int, jobs: Jobs) -> pd.DataFrame:
    """How often random sets have a trend."""
    (table,) = jobs([(trend_runs, runs)])
    return pd.DataFrame(
        {
            "what": f"random sets, {where}",
            "relations": table["relations"].iloc[0],
            "draws": table["draws"].iloc[0],
            "runs": len(table),
            "trend claimed over all relations": table[where].mean(),
        }
        for where in ("home", "elsewhere")
    )


def study(one: tuple[Any, ...]) -> pd.DataFrame:
    found = one[0](*one[1:])
    table = pd.DataFrame([found] if isinstance(found, dict) else found)
    shown = table.mean(numeric_only=True).round(4).to_dict()
    print(one[0].__name__, one[1:], shown, file=sys.stderr, flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--write", action="store_true", help="the CSV, and the page's tables")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:

        def jobs(studies: Sequence[tuple[Any, ...]]) -> list[pd.DataFrame]:
            return list(pool.map(study, studies))

        tables = {
            "nothing": nothing_table(options.runs, jobs),
            "harm": harm_table(3 * options.runs // 10, jobs),
            "away": away_table(options.runs, jobs),
            "cost": cost_table(),
            "overlap": overlap_table(10 * options.runs, jobs),
            "trend": trend_table(options.runs, jobs),
        }
    for table in tables.values():
        print(table.to_string())
    if options.write:
        write("draws", tables)


if __name__ == "__main__":
    main()
