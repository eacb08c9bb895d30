"""The null of the maximum AP: exact with ties, fair under the null, and able to find what is planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    ActivationError,
    RelationFormatError,
    TooFewFactsError,
    UnknownOptionError,
)
from relation_neurons.plots.reliability import spectrum
from relation_neurons.ranking.detection_tasks import detection_tasks
from relation_neurons.ranking.null import null_maximum
from relation_neurons.ranking.rank import rank_neurons
from relation_neurons.scoring.permutations import MaximumNull, maximum_nulls, permuted_labels

RELATIONS = ("capital", "river", "food")


def detection_table(values=None, *, facts=20, templates=2, neutral=30, neurons=40, seed=0):
    """A table of noise: three relations with `templates` prompts a fact, and neutral prompts."""
    rows = [
        {"kind": "fact", "relation": relation, "fact": f"place{i}", "subject": f"place{i}"}
        for relation in RELATIONS
        for i in range(facts)
        for _ in range(templates)
    ]
    rows += [
        {"kind": "background", "relation": "(background)", "fact": "", "subject": ""}
    ] * neutral
    prompts = pd.DataFrame(rows).assign(language="en", side="detection")
    prompts.insert(0, "prompt_id", np.arange(len(prompts)))
    if values is None:
        draw = np.random.default_rng(seed).normal(size=(len(prompts), 2, neurons // 2))
        values = torch.from_numpy(draw.astype(np.float32))
    still = torch.ones(values.shape[1:])
    return ActivationTable(values, prompts, still, still, still, "mean", "post")


def recall_of(table, *, unknown=()):
    """Everything is known on both sides but the prompts named."""
    facts = table.prompts[table.prompts["kind"] == "fact"]
    recall = facts[["prompt_id", "relation", "language", "subject", "side"]].assign(known=True)
    recall.loc[recall["prompt_id"].isin(unknown), "known"] = False
    held_out = recall.assign(prompt_id=recall["prompt_id"] + 10_000, side="held_out", known=True)
    return pd.concat([recall, held_out], ignore_index=True)


def noise_null(seed, *, prompts=40, neurons=30, permutations=19, positives=12):
    """The null of one family of single prompts over random activations."""
    draw = np.random.default_rng([seed, 7]).normal(size=(prompts, neurons)).astype(np.float32)
    member = torch.zeros(1, prompts, dtype=torch.int8)
    member[0, :positives] = 1
    return maximum_nulls(
        torch.from_numpy(draw),
        member,
        np.arange(prompts),
        permutations=permutations,
        seeds=[[seed, 1]],
    )[0]


@pytest.mark.parametrize(
    ("dtype", "levels"),
    [(torch.float32, 3), (torch.bfloat16, 11), (torch.float64, 10_000), (torch.int64, 3)],
)
def test_pitfall_10_equals_scikit_learn_with_ties_under_every_permutation(dtype, levels):
    """Pitfall 10: tied activations are one threshold, for the true labels and for the permuted."""
    rng = np.random.default_rng(levels)
    activations = torch.from_numpy(rng.integers(-levels, levels, (60, 25))).to(dtype)
    activations[:, 0] = 1  # a constant column: AP is the prevalence
    membership = torch.from_numpy(rng.integers(-1, 2, (2, 60)).astype(np.int8))
    units = rng.integers(0, 25, 60)
    seeds = [[3, family] for family in range(2)]
    nulls = maximum_nulls(activations, membership, units, permutations=19, seeds=seeds)
    contrasts = activations.double().numpy()

    def oracle(labels, kept):
        return [average_precision_score(labels[kept], contrasts[kept, n]) for n in range(25)]

    for null, member, seed in zip(nulls, membership.numpy(), seeds, strict=True):
        kept = member >= 0
        np.testing.assert_allclose(null.ap, oracle(member == 1, kept), atol=1e-10)
        permuted = permuted_labels(member, units, 19, seed=seed)
        expected = [max(oracle(labels, kept)) for labels in permuted]
        np.testing.assert_allclose(null.maxima, expected, atol=1e-10)


def test_chunks_do_not_change_the_null(monkeypatch):
    table = detection_table()
    whole = null_maximum(table, recall_of(table), permutations=19)
    monkeypatch.setattr("relation_neurons.scoring.permutations._CHUNK", 1000)
    pd.testing.assert_frame_equal(whole, null_maximum(table, recall_of(table), permutations=19))


def test_pitfall_12_noise_is_beyond_chance_in_one_run_of_twenty():
    """Pitfall 12: over noise the best AP is far above the prevalence, and yet nothing is found."""
    nulls = [noise_null(seed) for seed in range(200)]
    best = np.array([null.ap.max() for null in nulls])
    assert best.mean() > 0.3 + 0.15  # the prevalence is 0.3
    found = np.array([(null.ap > null.line).any() for null in nulls])
    assert 0.01 <= found.mean() <= 0.095  # 5%, three standard errors either way
    p = np.array([null.p_value for null in nulls])
    assert p.min() >= 1 / 20
    counts = np.bincount(np.rint(p * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts.reshape(10, 2).sum(axis=1)).pvalue > 0.01  # uniform


def test_a_neuron_lies_beyond_the_line_exactly_where_p_is_small():
    for permutations in (19, 50, 99, 200):
        for seed in range(20):
            null = noise_null(seed, permutations=permutations)
            assert (null.ap.max() > null.line) == (null.p_value <= 0.05)
    maxima = np.arange(50.0)
    assert MaximumNull(np.array([47.5]), maxima).line == 48  # two of 50 reach 47.5: p = 3/51


def test_a_planted_neuron_is_found_and_p_has_a_floor():
    table = detection_table()
    values = table.values.clone()
    river = torch.tensor((table.prompts["relation"] == "river").to_list())
    values[river, 1, 3] += 8
    values[river, 0, 5] += 8
    table = detection_table(values)
    found = null_maximum(table, recall_of(table), permutations=24).set_index(["relation", "score"])
    for contrast in ("specific", "background"):
        row = found.loc[("river", contrast)]
        assert row["beyond"] == 2 and row["observed_max"] == 1.0
        assert row["p_value"] == 1 / 25  # the least that 24 permutations can show
        assert row["verdict"] == "beyond chance"
        assert row["prevalence"] < row["null_mean"] < row["null_95"] < 1
    assert found.loc[("river", "specific"), "positives"] == 40
    assert found.loc[("river", "specific"), "negatives"] == 80
    assert found.loc[("river", "background"), "negatives"] == 30


def test_labels_move_by_fact_and_their_number_stays():
    """Positives of a fact go together, neutral prompts alone, and prompts of neither side never."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 4, 40)
    units = np.repeat(np.arange(40), sizes)
    member = np.repeat(np.where(np.arange(40) < 15, 1, 0), sizes).astype(np.int8)
    member[units >= 36] = -1
    drawn = permuted_labels(member, units, 200, seed=[0, 1])
    assert (drawn.sum(axis=1) == (member == 1).sum()).all()
    assert not drawn[:, member == -1].any()
    for unit in range(36):
        assert (drawn[:, units == unit].all(axis=1) == drawn[:, units == unit].any(axis=1)).all()
    share = drawn[:, member >= 0].mean(axis=0)
    assert share.min() > 0.2 and share.max() < 0.65  # every fact has its turn


def test_where_no_unit_fits_the_number_is_as_near_as_can_be():
    units = np.repeat(np.arange(10), 3)
    for positives, expected in ((4, 3), (5, 6), (3, 3)):
        member = (np.arange(30) < positives).astype(np.int8)
        assert (permuted_labels(member, units, 50, seed=[1]).sum(axis=1) == expected).all()


def test_facts_that_cluster_need_their_labels_to_move_together():
    """Two prompts of a fact are alike; moved one by one they would make noise look like a finding."""
    found = {"fact": 0, "prompt": 0}
    facts, copies = 30, 6
    for seed in range(40):
        rng = np.random.default_rng([seed, 11])
        values = np.repeat(rng.normal(size=(facts, 20)), copies, axis=0).astype(np.float32)
        member = torch.from_numpy(np.repeat(np.arange(facts) < 8, copies).astype(np.int8))[None]
        for moved, units in (
            ("fact", np.repeat(np.arange(facts), copies)),
            ("prompt", np.arange(facts * copies)),
        ):
            null = maximum_nulls(
                torch.from_numpy(values), member, units, permutations=19, seeds=[[seed]]
            )[0]
            found[moved] += null.p_value <= 0.05
    assert found["fact"] <= 6 and found["prompt"] >= 35


def test_it_tests_what_is_ranked():
    table = detection_table()
    recall = recall_of(table, unknown=(0, 1, 2, 45))
    tasks = {task.key: task for task in detection_tasks(table.prompts, recall, min_known=10)}
    found = null_maximum(table, recall, permutations=19, contrasts=("background", "unknown"))
    assert set(found["score"]) == {"background"}  # too few unknown prompts to rank by
    for row in found.itertuples():
        task = tasks[row.score, row.relation, row.language]
        assert row.positives == task.positive.sum() and row.negatives == task.negative.sum()
    assert found.set_index("relation").loc["capital", "positives"] == 37


def test_pitfall_17_the_same_seed_gives_the_same_bytes():
    """Pitfall 17: every draw has its own seed; the order of relations and scores plays no part."""
    table = detection_table()
    recall = recall_of(table)
    first = null_maximum(table, recall, permutations=19, seed=4)
    pd.testing.assert_frame_equal(first, null_maximum(table, recall, permutations=19, seed=4))
    alone = null_maximum(table, recall, permutations=19, contrasts=("background",), seed=4)
    kept = first[first["score"] == "background"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, alone)
    other = null_maximum(table, recall, permutations=19, seed=5)
    assert (other["null_mean"] != first["null_mean"]).any()
    assert (other["observed_max"] == first["observed_max"]).all()


def test_what_cannot_be_tested_is_refused():
    table = detection_table()
    recall = recall_of(table)
    with pytest.raises(UnknownOptionError, match="expected 19 or more"):
        null_maximum(table, recall, permutations=10)
    with pytest.raises(UnknownOptionError, match="Did you mean specific"):
        null_maximum(table, recall, contrasts=("specifc",))
    with pytest.raises(TooFewFactsError, match="shots=3"):
        null_maximum(table, recall, min_known=21)
    values = table.values.clone()
    values[3, 1, 1] = float("nan")
    with pytest.raises(ActivationError, match="NaN"):
        null_maximum(detection_table(values), recall)


def test_the_spectrum_draws_every_relation_with_its_line():
    table = detection_table(neurons=400)
    recall = recall_of(table)
    null = null_maximum(table, recall, permutations=19)
    ranking = rank_neurons(table, recall)
    fig = spectrum(ranking.frame, null)
    lines = [trace for trace in fig.data if trace.name == "ranked neurons"]
    assert len(lines) == 3 and sum(bool(trace.showlegend) for trace in lines) == 1
    rows = null[null["score"] == "specific"].reset_index(drop=True)
    heights = {round(shape.y0, 9) for shape in fig.layout.shapes}
    assert heights == set(rows["null_95"].round(9)) | set(rows["prevalence"].round(9))
    for line, row in zip(lines, rows.itertuples(), strict=True):
        assert line.x[0] == 1 and line.x[-1] == 400 and len(line.x) < 200
        assert line.y[0] == pytest.approx(row.observed_max, abs=1e-6)
        assert f"{row.beyond} neurons beyond chance" in line.hovertext[0]
    with pytest.raises(RelationFormatError, match="no row"):
        spectrum(ranking.frame, null, contrast="nonsense")
    with pytest.raises(RelationFormatError, match="null_95"):
        spectrum(ranking.frame, null.drop(columns="null_95"))
