"""Tests among random sets, each against the share of deals counted one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relation_neurons.analysis.draw_tests import (
    ALPHA,
    EXCEEDANCES,
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

numbers = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5]), min_size=1, max_size=40)


@given(numbers, st.sampled_from([-1.0, -0.5, 0.0, 0.5]))
def test_the_rank_is_the_share_of_sets_that_do_as_much(draws, value):
    sets = np.array([value, *draws])
    assert rank_p(value, sets[1:]) == pytest.approx((sets <= value).mean())
    assert 0 < mid_p(value, sets[1:]) <= 1
    assert rank_p(value + 1e-12, sets[1:]) == rank_p(value, sets[1:]), "rounding changes no rank"


def test_a_draw_without_a_number_counts_against_the_claim():
    drawn = np.array([0.0] * 18 + [np.nan])
    assert rank_p(-1.0, drawn) == pytest.approx(2 / 20) == sequential_p(-1.0, drawn)[0]
    assert all_relations_p(np.array([-1.0]), [drawn]) == pytest.approx(1 / 19)


def test_no_draw_says_nothing():
    none = np.empty(0)
    assert np.isnan(rank_p(0.0, none)) and sequential_p(0.0, none)[1:] == (0, False)
    assert np.isnan(all_relations_p(none, []))


@given(numbers, st.integers(0, 60))
def test_draws_after_the_answer_is_clear_are_not_read(draws, more):
    drawn = np.array(draws * 3)
    p, read, stopped = sequential_p(-0.5, drawn)
    if stopped:
        assert (drawn[:read] <= -0.5).sum() == EXCEEDANCES and p == EXCEEDANCES / read
        assert sequential_p(-0.5, np.append(drawn, np.full(more, -9.0))) == (p, read, stopped)
    else:
        assert read == len(drawn) and p == rank_p(-0.5, drawn)


def test_the_sequential_p_value_holds_its_level():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(4000):
        sets = rng.standard_t(2, size=200)
        found.append(sequential_p(sets[0], sets[1:])[0])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(np.array(found) <= level) <= level + 3 * np.sqrt(level / 4000)


def test_all_relations_are_the_share_of_deals():
    rng = np.random.default_rng(1)
    pools = [rng.normal(size=5), rng.standard_t(2, size=4), rng.normal(size=6)]
    scaled = [(pool - np.median(pool)) / pool.std() for pool in pools]
    deals = np.array([sum(deal) for deal in product(*scaled)])
    expected = np.mean(deals <= sum(pool[0] for pool in scaled) + 1e-9)
    ranked, draws = np.array([pool[0] for pool in pools]), [pool[1:] for pool in pools]
    assert all_relations_p(ranked, draws) == pytest.approx(expected)
    assert all_relations_p(ranked, draws, deals=119) == pytest.approx(expected, abs=0.2)
    many = all_relations_p(ranked, draws, deals=100, seed=3)
    assert many == all_relations_p(ranked, draws, deals=100, seed=3)


def test_controls_that_do_nothing_leave_a_relation_out_of_the_sum():
    still = all_relations_p(np.zeros(2), [np.zeros(9), np.zeros(9)])
    assert still == 1.0, "neither an effect nor a spread"
    assert all_relations_p(np.array([-1.0, 0.0]), [np.zeros(9), np.zeros(9)]) == pytest.approx(0.1)


def test_step_down_is_the_maximum_over_deals_of_whole_sets():
    """Against Westfall and Young's procedure written out, over the same deals."""
    rng = np.random.default_rng(2)
    ranked = rng.normal(size=(3, 3)) - 2 * np.eye(3)[[1, 2, 0]]
    draws = [rng.normal(size=(19, 3)) for _ in range(3)]
    for i in range(3):
        ranked[i, i] = np.nan
        draws[i][:, i] = np.nan
    tests = away_p(ranked, draws, deals=300, seed=5)
    found = tests.adjusted
    assert np.isnan(np.diag(found)).all() and np.isnan(np.diag(tests.own)).all()
    pools = [np.concatenate([ranked[[i]], draws[i]]) for i in range(3)]
    centred = [pool - np.median(pool, axis=0) for pool in pools]
    every = np.concatenate(centred)
    low = np.sqrt(np.nanmean(np.where(every < 0, every, 0.0) ** 2 + 0 * every, axis=0))
    high = np.sqrt(np.nanmean(np.where(every > 0, every, 0.0) ** 2 + 0 * every, axis=0))
    scaled = [np.maximum(-values / low, values / high) for values in centred]
    cells = [(i, j) for i in range(3) for j in range(3) if i != j]
    cells.sort(key=lambda cell: -scaled[cell[0]][0, cell[1]])
    deal = np.random.default_rng([5, 0x6D617854])
    places = [deal.integers(20, size=300) for _ in range(3)]
    before = 0.0
    for at, (i, j) in enumerate(cells):
        largest = np.max([scaled[a][places[a], b] for a, b in cells[at:]], axis=0)
        before = max(before, (1 + (largest >= scaled[i][0, j] - 1e-9).sum()) / 301)
        alone = (scaled[i][:, j] >= scaled[i][0, j] - 1e-9).mean()
        assert tests.own[i, j] == pytest.approx(alone)
        assert found[i, j] == pytest.approx(max(before, alone))


@settings(max_examples=50)
@given(st.integers(1, 40), st.floats(1, 2))
def test_the_draws_that_are_needed_suffice_for_one_cell_alone(cells, factor):
    draws = draws_needed(cells, factor=factor)
    assert least_p(draws, factor=factor) * cells <= ALPHA
    assert least_p(int(draws / 1.3), factor=factor) * cells > ALPHA


def test_inflation_deflates_and_is_at_least_one():
    rng = np.random.default_rng(3)
    wide = np.array([mid_p(rng.normal(0, 2), rng.normal(size=99)) for _ in range(400)])
    assert inflation(wide) == pytest.approx(4, rel=0.25)
    assert inflation(np.full(5, 0.001)) == 1.0, "five cells are too few to say"
    assert deflated(0.01, 4.0) > deflated(0.01, 2.0) > 0.01
    assert deflated(0.02, 2.0, sides=2) == pytest.approx(2 * deflated(0.01, 2.0))
    assert np.isnan(deflated(float("nan"), 2.0)) and np.isnan(least_p(0))
    assert overlap_inflation(0.0) == overlap_inflation(float("nan")) == 1.0
