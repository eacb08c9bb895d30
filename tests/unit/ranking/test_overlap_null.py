"""The null of overlap: deals against brute force, what they keep, and what they say of noise."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    ActivationError,
    DoseError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.ranking.detection_tasks import detection_tasks
from relation_neurons.ranking.overlap_null import deal_roles, overlap_null, whole_facts
from relation_neurons.scoring.deals import DealtRoles, dealt_precision
from relation_neurons.scoring.scores import family_average_precision

sys.path.insert(0, str(ROOT / "scripts"))

import overlap_calibration

CONTRASTS = ("background", "specific")
KEEP = 12


def detection_table(*, levels=5, languages=("en",), neurons=30, seed=0, order=None):
    """Three relations of unequal size, some of it unknown, with many ties."""
    rng = np.random.default_rng(seed)
    rows = [
        ("fact", relation, language, f"place{i}", bool(rng.random() < 0.8))
        for language in languages
        for relation, facts in (("capital", 16), ("river", 14), ("food", 19))
        for i in range(facts)
        for _ in range(2)
    ]
    rows += [("background", "", language, "", True) for language in languages for _ in range(30)]
    prompts = pd.DataFrame(rows, columns=["kind", "relation", "language", "fact", "known"])
    prompts = prompts.assign(
        prompt_id=range(len(rows)), subject=prompts["fact"], side="detection", template="t"
    )
    prompts["form"] = ["statement", "question"] * (len(rows) // 2)
    if order is not None:
        prompts = prompts.iloc[order(len(rows))].reset_index(drop=True)
    values = rng.integers(-levels, levels, (len(rows), 2, neurons // 2)).astype(np.float32)
    still = torch.ones(values.shape[1:])
    table = ActivationTable(torch.from_numpy(values), prompts, still, still, still, "mean", "post")
    asked = prompts[prompts["kind"] == "fact"]
    held_out = asked.assign(side="held_out", prompt_id=asked["prompt_id"] + 10_000, known=True)
    return table, pd.concat([asked, held_out], ignore_index=True)


def roles_of(table, recall, contrast, language="en"):
    """Which prompts are positives of which relation, and which are negatives of which."""
    tasks = detection_tasks(table.prompts, recall, contrasts=(contrast,))
    member = np.stack([task.membership() for task in tasks if task.language == language])
    inside = (member >= 0).any(axis=0)
    names = {
        column: number for number, column in enumerate(sorted({*map(tuple, member.T[inside])}))
    }
    return np.array([names.get(tuple(column), -1) for column in member.T])


@pytest.mark.parametrize("contrast", CONTRASTS)
@pytest.mark.parametrize("order", ["d_prime", "index"])
def test_pitfall_11_a_deal_is_what_rank_neurons_finds_where_prompts_have_changed_places(
    contrast, order
):
    """Ties and all: the activations of prompts that play a role are put where that role stood."""
    table, recall = detection_table()
    null = overlap_null(
        table, recall, keep=KEEP, deals=19, contrasts=(contrast,), order=order, seed=3
    )
    roles = roles_of(table, recall, contrast)
    facts, languages = whole_facts(table.prompts), np.zeros(len(roles), dtype=np.int64)
    generators = overlap_generators(contrast, 19, seed=3)
    for deal, rng in enumerate(generators, 1):
        dealt = deal_roles(roles, languages, facts, rng)
        moved = np.arange(len(roles))
        for role in range(roles.max() + 1):
            moved[roles == role] = np.flatnonzero(dealt == role)
        swapped = replace(table, values=table.values[moved])
        ranking = rn.rank_neurons(swapped, recall, contrasts=(contrast,), order=order, keep=KEEP)
        frame = ranking.frame
        often = frame.groupby(["layer", "neuron"])["rank"].transform("size") > 1
        columns = ["relation", "language", "layer", "neuron", "rank"]
        expected = frame.loc[often | (frame["rank"] == KEEP), columns]
        found = null.loc[null["deal"] == deal, columns]
        pd.testing.assert_frame_equal(
            found.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
        )


def overlap_generators(contrast, deals, seed):
    from relation_neurons.ranking.overlap_null import _generators

    return _generators(contrast, deals, seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
def test_pitfall_10_dealt_precision_is_that_of_scikit_learn_with_ties(dtype):
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.integers(-4, 4, (50, 20))).to(dtype)
    tasks = rng.integers(-1, 2, (3, 6)).astype(np.int8)
    tasks[:, 0] = 1
    roles = rng.integers(-1, 6, (4, 50))
    roles[:, :2] = 0
    (found,) = dealt_precision(values, [DealtRoles(tasks, roles)])
    for deal in range(4):
        member = np.where(roles[deal] >= 0, tasks[:, roles[deal]], np.int8(-1))
        if dtype in (torch.float32, torch.bfloat16):  # compiled for the others nowhere else
            same = family_average_precision(values, torch.from_numpy(member)).numpy()
            np.testing.assert_array_equal(found[deal], same)
        for task, row in enumerate(member):
            inside = row >= 0
            oracle = [
                average_precision_score(row[inside] == 1, values[inside, n].double())
                for n in range(20)
            ]
            np.testing.assert_allclose(found[deal, task], oracle, atol=1e-12)


def test_tables_dealt_together_are_those_dealt_alone():
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.normal(size=(40, 9)).astype(np.float32))
    dealt = [
        DealtRoles(np.array([[1, 0]], dtype=np.int8), rng.integers(0, 2, (3, 40))),
        DealtRoles(np.array([[1, 0, -1], [0, 1, 0]], dtype=np.int8), rng.integers(-1, 3, (5, 40))),
    ]
    for together, one in zip(dealt_precision(values, dealt), dealt, strict=True):
        np.testing.assert_array_equal(together, dealt_precision(values, [one])[0])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_deal_keeps_every_count_and_facts_stay_whole_where_neutral_prompts_fill_up(data):
    draw = data.draw
    sizes = [draw(st.lists(st.integers(1, 3), min_size=4, max_size=12)) for _ in range(3)]
    neutral = draw(st.integers(20, 40))
    roles = np.concatenate([np.full(sum(own), i) for i, own in enumerate(sizes)])
    roles = np.concatenate([roles, np.full(neutral, 3)])
    flat = [size for own in sizes for size in own] + [1] * neutral
    facts = np.repeat(np.arange(len(flat)), flat)
    out = np.array(draw(st.lists(st.booleans(), min_size=len(roles), max_size=len(roles))))
    roles = np.where(out & (roles < 3) & (np.arange(len(roles)) % 5 == 0), -1, roles)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    dealt = deal_roles(roles, np.zeros(len(roles), dtype=np.int64), facts, rng)
    assert ((dealt == -1) == (roles == -1)).all(), "who plays no role gets none"
    counts = [np.bincount(some[some >= 0], minlength=4).tolist() for some in (roles, dealt)]
    assert counts[0] == counts[1]
    inside = dealt >= 0
    kinds = pd.Series(dealt[inside]).groupby(facts[inside]).nunique()
    assert (kinds == 1).all()


def test_facts_that_do_not_fit_are_parted_and_counts_stay():
    roles = np.repeat([0, 1, 2], 5)
    facts = np.repeat(np.arange(5), 3)
    for seed in range(20):
        dealt = deal_roles(roles, np.zeros(15, dtype=np.int64), facts, np.random.default_rng(seed))
        assert np.bincount(dealt).tolist() == [5, 5, 5]
        whole = pd.Series(dealt).groupby(facts).nunique() == 1
        assert whole.sum() >= 3, "a role has room for one fact of three, and there are three roles"


def test_every_prompt_has_its_turn_in_every_role():
    roles = np.repeat([0, 0, 1, 1, 2], [8, 8, 8, 8, 40])
    facts = np.concatenate([np.repeat(np.arange(16), 2), 16 + np.arange(40)])
    alone = np.zeros(len(roles), dtype=np.int64)
    dealt = np.stack(
        [deal_roles(roles, alone, facts, np.random.default_rng(s)) for s in range(2000)]
    )
    for role, share in ((0, 16 / 72), (1, 16 / 72), (2, 40 / 72)):
        found = (dealt == role).mean(axis=0)
        error = (share * (1 - share) / 2000) ** 0.5
        assert np.abs(found - share).max() < 5 * error, "for facts and neutral prompts alike"


def test_a_fact_in_two_languages_plays_the_same_part_as_often_as_before():
    table, recall = detection_table(languages=("en", "de"))
    prompts = table.prompts
    english = roles_of(table, recall, "background")
    german = roles_of(table, recall, "background", "de")
    roles, facts = np.maximum(english, german), whole_facts(prompts)
    languages = pd.factorize(prompts["language"])[0]
    assert facts[prompts["kind"] == "background"].max() == len(set(facts)) - 1
    assert len(set(facts[prompts["kind"] == "background"])) == 15, "with question and translation"

    positives = sorted({role for role in roles[prompts["kind"] == "fact"] if role >= 0})
    assert len(positives) == 3

    def common(given):
        sides = [
            {one for one in zip(facts[own], given[own], strict=True) if one[1] in positives}
            for own in ((languages == 0) & (given >= 0), (languages == 1) & (given >= 0))
        ]
        return len(sides[0] & sides[1])

    dealt = [
        deal_roles(roles, languages, facts, np.random.default_rng(seed)) for seed in range(100)
    ]
    for one in dealt:
        for language in (0, 1):
            counts = [
                np.bincount(given[(languages == language) & (given >= 0)]) for given in (roles, one)
            ]
            assert (counts[0] == counts[1]).all()
    found = np.mean([common(one) for one in dealt])
    assert 0.8 * common(roles) < found < 1.5 * common(roles)
    apart = np.mean(
        [
            common(
                np.where(languages == 1, one[np.random.default_rng(1).permutation(len(one))], one)
            )
            for one in dealt
        ]
    )
    assert apart < 0.7 * found


@pytest.mark.parametrize("cells", [1, 1000, 1 << 25])
def test_pitfall_17_neither_batches_nor_threads_nor_other_contrasts_change_a_deal(
    cells, monkeypatch
):
    table, recall = detection_table(languages=("en", "de"))
    asked = {"keep": KEEP, "deals": 19, "seed": 4}
    whole = overlap_null(table, recall, **asked)
    assert list(dict.fromkeys(whole["score"])) == ["specific", "background"]
    monkeypatch.setattr("relation_neurons.ranking.overlap_null._CELLS", cells)
    monkeypatch.setattr("relation_neurons.scoring.deals._CHUNK", max(cells, 500))
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    again = overlap_null(table, recall, **asked)
    torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(whole, again)
    alone = overlap_null(table, recall, contrasts=("background",), **asked)
    kept = whole[whole["score"] == "background"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone)
    other = overlap_null(table, recall, keep=KEEP, deals=19, seed=5)
    assert not other.equals(whole)


def test_deeper_sets_and_more_deals_hold_the_others():
    table, recall = detection_table()
    few = overlap_null(table, recall, keep=6, deals=19)
    many = overlap_null(table, recall, keep=KEEP, deals=25)
    there = many[(many["deal"] <= 19) & (many["rank"] <= 6)]
    often = there.groupby(["score", "deal", "layer", "neuron"])["rank"].transform("size") > 1
    kept = there[often | (there["rank"] == 6)].reset_index(drop=True)
    names = ["score", "deal", "relation", "layer", "neuron", "rank"]
    missing = few.merge(kept, on=names, how="left", indicator=True).query("_merge != 'both'")
    assert (missing["rank"] == 6).all(), "the last of a set is there even where it is not shared"


def test_what_cannot_be_dealt_is_refused():
    table, recall = detection_table()
    with pytest.raises(UnknownOptionError, match="expected 19 or more"):
        overlap_null(table, recall, deals=18)
    with pytest.raises(UnknownOptionError, match="Did you mean specific"):
        overlap_null(table, recall, contrasts=("specifc",))
    with pytest.raises(UnknownOptionError, match="No order"):
        overlap_null(table, recall, order="random")
    with pytest.raises(DoseError, match="1 to 30"):
        overlap_null(table, recall, keep=31)
    with pytest.raises(TooFewFactsError, match="no overlap can be judged"):
        overlap_null(table, recall, keep=5, min_known=50)
    values = table.values.clone()
    values[0, 0, 0] = float("nan")
    with pytest.raises(ActivationError, match="NaN"):
        overlap_null(replace(table, values=values), recall, keep=5)


def test_relations_share_on_noise_what_the_deals_expect_and_p_calls_few_pairs_a_finding():
    """20 runs of 15 pairs (`tests/slow/test_overlap_calibration.py` has many more).

    A mean over runs may miss by three standard errors; pairs of a run are not independent, so the
    standard errors are those of the runs' means. By the hypergeometric distribution, a fifth of the pairs
    and more would be a finding.
    """
    sizes = {"relations": 6, "facts": 12, "neutral": 60, "neurons": 1500}
    cells = pd.concat(
        [
            overlap_calibration.judged("correlated", seed, dose=40, deals=19, **sizes)
            for seed in range(20)
        ]
    )
    for contrast, part in cells.groupby("score"):
        runs = part.groupby("seed")
        gap = runs.apply(lambda run: (run["shared"] - run["expected"]).mean())
        assert abs(gap.mean()) < 3 * gap.sem(), contrast
        share = runs.apply(lambda run: (run["p_value"] <= 0.05).mean())
        assert share.mean() < 0.05 + 3 * share.sem()
        total = runs["p_total"].first()
        assert (total <= 0.05).mean() < 0.05 + 3 * (0.05 * 0.95 / 20) ** 0.5
    shared = cells.groupby("score")[["shared", "formula"]].mean()
    assert shared.loc["background", "shared"] > 2 * shared.loc["background", "formula"]
    assert shared.loc["specific", "shared"] < 0.7 * shared.loc["specific", "formula"]
    former = (cells.loc[cells["score"] == "background", "formula_p"] <= 0.05).mean()
    assert former > 0.2
