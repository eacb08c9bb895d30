"""Transfer between relations, on a table made by hand."""

from __future__ import annotations

import pytest

import relation_neurons as rn
from helpers.fake_effects import CHANGES, effects_table


def test_transfer_is_a_share_of_what_the_own_set_does():
    changes = {key: 5 * value for key, value in CHANGES.items()}
    effects = effects_table(changes, prompts=20)
    cells = rn.transfer_matrix(effects, dose=10).set_index(["ablated", "relation"])
    assert cells.loc[("a", "a"), "transfer"] == 1.0
    assert cells.loc[("a", "b"), "transfer"] == pytest.approx(-0.25 / -0.5)


def test_transfer_is_left_out_where_it_would_be_noise():
    """Where the own set does nothing clear, or where there are few prompts, a share says nothing."""
    few = rn.transfer_matrix(effects_table(CHANGES), dose=10)
    assert few["transfer"].isna().all() and (few["n"] == 4).all()
    one = {("a", "a", "ranked", 10): 1, ("b", "b", "ranked", 10): 10, ("a", "b", "ranked", 10): 5}
    cells = rn.transfer_matrix(effects_table(one, prompts=20), dose=10)
    cells = cells.set_index(["ablated", "relation"])
    assert cells.loc[("a", "a"), "low"] < 0 <= cells.loc[("a", "a"), "high"]
    assert cells.loc[["a", "b"], "transfer"].xs("a", level="relation").isna().all()
    assert cells.loc[("a", "b"), "transfer"] == pytest.approx(0.5)
