"""Average precision against scikit-learn, with ties, in every dtype."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.errors import ActivationError
from relation_neurons.scoring import scores_cuda
from relation_neurons.scoring.inputs import group_prompts
from relation_neurons.scoring.kernels import empty_scores
from relation_neurons.scoring.radix_sort import sort_block
from relation_neurons.scoring.scores import (
    family_auroc,
    family_average_precision,
    family_scores,
    standardised_difference,
)

DTYPES = [
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.int32,
    torch.int64,
]


def awkward(prompts, seed=0):
    """Columns of every kind that a float32 sort can get wrong, a neuron each."""
    rng = np.random.default_rng(seed)
    normal = rng.normal(size=prompts)
    last_bits = (np.float32(1) + rng.integers(0, 900, prompts) * np.float32(2**-23)).astype(float)
    far = last_bits.copy()
    far[0] = -3e38  # beside values that differ in the last bits only
    columns = {
        "normal": normal,
        "heavy tails": normal**9,
        "constant": np.ones(prompts),
        "two values": np.sign(normal),
        "zeros of both signs": np.where(normal > 0.5, 1, np.where(normal > 0, 0.0, -0.0)),
        "subnormals of both signs": rng.integers(-40, 40, prompts) * 1e-45,
        "last bits": last_bits,
        "last bits and one far away": far,
        "last bits of both signs": last_bits * np.sign(normal),
        "integers": rng.integers(-5, 6, prompts),
        "the whole range": np.where(normal > 0, 1, -1) * 10 ** rng.uniform(-44, 38, prompts),
    }
    return torch.from_numpy(np.stack(list(columns.values()), axis=1).astype(np.float32))


def brute_force(contrasts, member):
    """AP by its definition: threshold by threshold, over those that count."""
    kept = member >= 0
    contrasts, positive = contrasts[kept], member[kept] == 1
    found, recall = 0.0, 0.0
    for threshold in sorted(set(contrasts.tolist()), reverse=True):
        above = contrasts >= threshold
        reached = positive[above].sum() / positive.sum()
        found += (reached - recall) * positive[above].mean()
        recall = reached
    return found


def oracle(activations, labels, relations):
    contrasts = activations.double().numpy().reshape(len(activations), -1)
    return np.array(
        [
            [
                average_precision_score(labels.numpy() == r, contrasts[:, n])
                for n in range(contrasts.shape[1])
            ]
            for r in range(relations)
        ]
    )


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64]
)
def test_equals_scikit_learn_in_every_dtype(dtype):
    rng = np.random.default_rng(0)
    activations = torch.from_numpy(rng.normal(size=(200, 5, 8)) * 3).to(dtype)
    activations[:, 0, 0] = 1  # a constant column
    activations[:50, 1, 1] = 0.0
    activations[50:90, 1, 1] = -0.0  # a tie with the 0.0 above
    labels = torch.from_numpy(rng.integers(-1, 4, 200))
    found = rn.average_precision(activations, labels)
    assert found.shape == (4, 5, 8)
    np.testing.assert_allclose(found.reshape(4, -1), oracle(activations, labels, 4), atol=1e-6)


@pytest.mark.parametrize("prompts", [2, 63, 64, 65, 200, 1500])
def test_equals_brute_force_and_scikit_learn_on_awkward_columns(prompts):
    activations = awkward(prompts)
    member = np.random.default_rng(prompts).integers(-1, 2, (3, prompts)).astype(np.int8)
    member[:, :2] = [0, 1]  # at least one of each
    found = family_average_precision(activations, torch.from_numpy(member)).numpy()
    for family, row in enumerate(member):
        kept = row >= 0
        for neuron, contrasts in enumerate(activations.double().numpy().T):
            oracle = average_precision_score(row[kept] == 1, contrasts[kept])
            assert found[family, neuron] == pytest.approx(oracle, abs=1e-9)
            if prompts <= 200:
                assert found[family, neuron] == pytest.approx(brute_force(contrasts, row), abs=1e-9)


@pytest.mark.parametrize("prompts", [1, 50, 3000])
def test_sorts_as_numpy_does_and_keeps_the_order_of_ties(prompts):
    activations = awkward(prompts, seed=1)
    bits = activations.numpy().view(np.uint32)
    keys = np.empty((activations.shape[1], prompts), dtype=np.uint64)
    number = np.arange(prompts, dtype=np.uint64)
    assert sort_block(bits, None, 0, activations.shape[1], number, keys)
    for row, values in zip(keys, activations.numpy().T, strict=True):
        expected = np.argsort(-values.astype(np.float64), kind="stable")
        np.testing.assert_array_equal(row & 0xFFFFFFFF, expected)
        ties = np.diff(values[expected]) == 0
        np.testing.assert_array_equal(np.diff(row >> 32) == 0, ties)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_pass_gives_what_each_score_gives_alone(dtype):
    rng = np.random.default_rng(4)
    activations = torch.from_numpy(rng.normal(size=(90, 70)) * 4).to(dtype)
    membership = torch.from_numpy(rng.integers(-1, 2, (6, 90)).astype(np.int8))
    found = family_scores(activations, membership)
    alone = standardised_difference(activations, membership)
    np.testing.assert_array_equal(
        found.average_precision, family_average_precision(activations, membership)
    )
    for one, other in zip((found.d_prime, found.mean_positive), alone, strict=False):
        np.testing.assert_array_equal(one, other)
    values = activations.double().numpy()
    for family, member in enumerate(membership.numpy()):
        above, below = values[member == 1], values[member == 0]
        spread = np.sqrt((above.var(axis=0) + below.var(axis=0)) / 2)
        expected = (above.mean(axis=0) - below.mean(axis=0)) / spread
        np.testing.assert_allclose(found.d_prime[family], expected, atol=1e-9)
        np.testing.assert_allclose(found.mean_negative[family], below.mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_way_for_graphics_cards_gives_the_same(dtype, monkeypatch):
    """It is torch's operations alone, so it runs here too; the device is not what differs."""
    monkeypatch.setattr("relation_neurons.scoring.scores_cuda._CELLS", 700)
    rng = np.random.default_rng(5)
    activations = torch.cat([torch.from_numpy(rng.normal(size=(90, 30))), awkward(90)], dim=1)
    activations = activations.clamp(-100, 100).to(dtype)
    membership = torch.from_numpy(rng.integers(-1, 2, (6, 90)).astype(np.int8))
    found = empty_scores(6, activations.shape[1], ("average_precision", "auroc", "d_prime"))
    assert scores_cuda.score(activations, group_prompts(membership), found)
    expected = family_scores(activations, membership)
    area = family_auroc(activations, membership)
    np.testing.assert_allclose(found.average_precision, expected.average_precision, atol=1e-12)
    np.testing.assert_allclose(found.auroc, area, atol=1e-12)
    np.testing.assert_allclose(found.d_prime, expected.d_prime, atol=1e-6)
    np.testing.assert_allclose(found.mean_positive, expected.mean_positive, atol=1e-12)
    if activations.is_floating_point():
        activations[3, 7] = float("inf")
        assert not scores_cuda.score(activations, group_prompts(membership), found)


def test_any_layout_in_memory_gives_the_same():
    rng = np.random.default_rng(6)
    wide = torch.from_numpy(rng.normal(size=(60, 300))).float()
    labels = torch.from_numpy(rng.integers(0, 3, 60))
    expected = rn.average_precision(wide[:, 10:90].contiguous(), labels)
    assert torch.equal(rn.average_precision(wide[:, 10:90], labels), expected)
    columns = wide[:, 10:90].T.contiguous()
    assert torch.equal(rn.average_precision(columns.T, labels), expected)


def test_threads_do_not_change_the_scores():
    activations = torch.randn(40, 2000, generator=torch.Generator().manual_seed(0))
    membership = torch.arange(40)[None].remainder(2).to(torch.int8)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(family_scores(activations, membership))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0].average_precision, found[1].average_precision)
    np.testing.assert_array_equal(found[0].d_prime, found[1].d_prime)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_above_a_memory_mapped_table_stays_below_its_bound():
    """1.5 GB for 3,000 prompts x 352,256 neurons, in proportion; float32 copies would take 160 MB."""
    neurons = 20_000
    script = ROOT / "benchmarks" / "scoring_memory.py"
    command = [sys.executable, str(script), "2000", str(neurons)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    measured = json.loads(run.stdout)
    assert measured["scores"] == 4 * 12 * neurons * 8
    assert measured["scores"] <= measured["above"] <= 1.5e9 * neurons / 352_256


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=40))
def test_equals_scikit_learn_under_many_ties(rows):
    activations = torch.tensor([[float(value)] for value, _ in rows])
    labels = torch.tensor([label for _, label in rows] + [])
    relations = int(labels.max()) + 1
    present = [r for r in range(relations) if (labels == r).any()]
    found = rn.average_precision(activations, labels)
    expected = oracle(activations, labels, relations)
    np.testing.assert_allclose(found[present], expected[present], atol=1e-6)


def test_pitfall_10_tied_activations_are_one_threshold_whatever_the_row_order():
    labels = torch.tensor([0] * 500 + [-1] * 2500)
    activations = torch.ones(3000, 1)
    for order in (torch.arange(3000), torch.arange(3000).flip(0)):
        found = rn.average_precision(activations[order], labels[order])
        assert found.item() == pytest.approx(500 / 3000, abs=1e-12)


def test_the_order_of_prompts_does_not_matter():
    rng = np.random.default_rng(1)
    activations = torch.from_numpy(rng.integers(0, 5, (80, 30))).half()
    labels = torch.from_numpy(rng.integers(-1, 3, 80))
    order = torch.from_numpy(rng.permutation(80))
    assert torch.equal(
        rn.average_precision(activations, labels),
        rn.average_precision(activations[order], labels[order]),
    )


def test_chunks_do_not_change_the_scores(monkeypatch):
    rng = np.random.default_rng(2)
    activations = torch.from_numpy(rng.normal(size=(50, 101))).float()
    membership = torch.from_numpy(rng.integers(-1, 2, (4, 50)).astype(np.int8))
    whole = (
        family_average_precision(activations, membership),
        *standardised_difference(activations, membership),
    )
    monkeypatch.setattr("relation_neurons.scoring.scores._CHUNK", 700)
    parts = (
        family_average_precision(activations, membership),
        *standardised_difference(activations, membership),
    )
    assert torch.equal(whole[0], parts[0])
    for a, b in zip(whole[1:], parts[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_families_ignore_what_is_neither_positive_nor_negative():
    rng = np.random.default_rng(3)
    activations = torch.from_numpy(rng.normal(size=(60, 7))).float()
    membership = rng.integers(-1, 2, 60).astype(np.int8)
    kept = membership >= 0
    found = family_average_precision(activations, torch.from_numpy(membership[None]))[0]
    expected = [
        average_precision_score(membership[kept], activations[kept, n].numpy()) for n in range(7)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize(("size", "bound"), [(10, 0.331), (48, 0.312)])
def test_the_bound_behind_disjoint_specific_sets(size, bound):
    """Pitfall 21: where AP = 1 for one relation, another of equal size has at most 1 - (H_2n - H_n)."""
    labels = torch.tensor([0] * size + [1] * size)
    best_case = torch.cat([torch.linspace(2, 3, size), torch.linspace(0, 1, size)])[:, None]
    first, second = rn.average_precision(best_case, labels)
    assert first.item() == 1.0
    assert second.item() == pytest.approx(np.mean([i / (size + i) for i in range(1, size + 1)]))
    assert second.item() == pytest.approx(bound, abs=5e-4)
    assert second.item() > 1 - np.log(2)


def test_standardised_difference_is_its_formula():
    rng = np.random.default_rng(4)
    activations = torch.from_numpy(rng.normal(size=(40, 6))).float()
    membership = rng.integers(-1, 2, 40).astype(np.int8)
    d, positive, negative = standardised_difference(activations, torch.from_numpy(membership[None]))
    a, b = (
        activations[membership == 1].double().numpy(),
        activations[membership == 0].double().numpy(),
    )
    np.testing.assert_allclose(
        d[0], (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / 2), rtol=1e-9
    )
    np.testing.assert_allclose(positive[0], a.mean(0))
    np.testing.assert_allclose(negative[0], b.mean(0))


@pytest.mark.parametrize("score_with", ["numba", "torch"])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_standardised_difference_does_not_depend_on_where_a_neuron_lies(offset, score_with):
    """Far from 0 the squares of activations are all alike, and their differences must not be lost."""
    rng = np.random.default_rng(5)
    membership = torch.from_numpy(rng.integers(-1, 2, (4, 100)).astype(np.int8))
    shifted = rng.normal(size=(100, 70)) + 0.5 * (membership[0].numpy() == 1)[:, None] + offset
    shifted[0, 3] = -1e7  # one far from the others
    activations = torch.from_numpy(shifted).float()
    if score_with == "numba":
        found = standardised_difference(activations, membership)
    else:
        scores = empty_scores(4, 70, ("d_prime",))
        assert scores_cuda.score(activations, group_prompts(membership), scores)
        found = (scores.d_prime, scores.mean_positive, scores.mean_negative)
    for family, member in enumerate(membership.numpy()):
        a, b = (activations[torch.from_numpy(member == side)].double().numpy() for side in (1, 0))
        expected = (a.mean(0) - b.mean(0)) / np.sqrt((a.var(0) + b.var(0)) / 2)
        np.testing.assert_allclose(found[0][family], expected, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found[1][family], a.mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[2][family], b.mean(0), rtol=1e-12, atol=1e-12)


def test_standardised_difference_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    activations = torch.randn(100, 3, generator=generator)
    activations[:50] += 1
    membership = torch.tensor([[1] * 50 + [0] * 50], dtype=torch.int8)
    near, far = (standardised_difference(activations + x, membership)[0] for x in (0.0, 1e6))
    torch.testing.assert_close(far, near, atol=0.05, rtol=0)  # float32 has steps of 0.06 there
    assert float(far[0, 0]) == pytest.approx(1.1287, abs=1e-3)


def test_a_constant_neuron_has_no_standardised_difference():
    d, *_ = standardised_difference(
        torch.full((6, 1), 0.3), torch.tensor([[1, 1, 1, 0, 0, 0]], dtype=torch.int8)
    )
    assert d.item() == 0.0


def test_pitfall_4_nan_is_an_error():
    activations = torch.zeros(4, 3)
    activations[1, 2] = float("nan")
    with pytest.raises(ActivationError, match="NaN"):
        rn.average_precision(activations, torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_pitfall_4_what_is_not_finite_is_an_error_in_every_dtype(dtype, bad):
    activations = torch.randn(20, 130).to(dtype)
    activations[7, 129] = bad
    membership = torch.arange(20)[None].remainder(2).to(torch.int8)
    for contrast in (family_average_precision, family_auroc, standardised_difference):
        with pytest.raises(ActivationError, match="expected finite values"):
            contrast(activations, membership)


def test_without_prompts_there_is_nothing_to_score():
    with pytest.raises(ActivationError, match="no prompt"):
        family_scores(torch.zeros(0, 3), torch.zeros(2, 0, dtype=torch.int8))


def test_scoring_leaves_torch_threads_alone():
    """numba's OpenMP layer would set the number of threads that torch uses from then on."""
    before = torch.get_num_threads()
    rn.average_precision(torch.randn(30, 100), torch.randint(0, 2, (30,)))
    assert torch.get_num_threads() == before
