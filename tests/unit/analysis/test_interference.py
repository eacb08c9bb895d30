"""The interference matrix and specificity, on a table made by hand."""

from __future__ import annotations

import relation_neurons as rn
from helpers.fake_effects import CHANGES, effects_table


def test_interference_and_specificity_by_row_and_column():
    """Pitfall 24: a row alone hides a set that breaks another relation more than its own."""
    matrix = rn.interference_matrix(effects_table(CHANGES), dose=10)
    cell = matrix.set_index(["ablated", "relation"])
    assert cell.loc[("a", "a"), "effect"] == -0.75
    assert cell.loc[("a", "a"), "difference"] == -0.5
    assert cell.loc[("a", "b"), "effect"] == -0.25
    assert (matrix["intact"] == 1).all() and (matrix["n"] == 4).all()
    both = rn.specificity(matrix).set_index("ablated")
    assert both.loc["a", "row"] == -0.75 + 0.25
    assert both.loc["a", "column"] == -0.75 - 0.0
    assert both.loc["b", "column"] == -0.5 + 0.25
