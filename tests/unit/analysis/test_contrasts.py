"""The headline, and known facts beside unknown ones, on a table made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.fake_effects import CHANGES, effects_table
from relation_neurons.analysis.contrasts import headline, known_against_others


def test_the_headline_keeps_home_elsewhere_and_controls_apart():
    table = headline(effects_table(CHANGES), dose=10).set_index(["relation", "what"])
    assert table.loc[("a", "home"), "effect"] == -0.75
    assert table.loc[("a", "elsewhere"), "effect"] == -0.25
    assert table.loc[("a", "control_contribution"), "effect"] == -0.25
    assert table.loc[("all relations", "home"), "effect"] == pytest.approx(-0.625)
    assert table.loc[("all relations", "home"), "n"] == 8


def test_pitfall_25_the_unknown_ranking_stands_beside_the_known_one():
    known = effects_table(CHANGES)
    unknown = known[(known["kind"] == "ranked") & (known["dose"] == 10)].assign(score="unknown")
    table = known_against_others(pd.concat([known, unknown]), dose=10).set_index(
        ["relation", "score"]
    )
    assert table.loc[("a", "unknown"), "effect"] == table.loc[("a", "specific"), "effect"] == -0.75
    assert np.isnan(table.loc[("a", "unknown"), "control"])
    assert table.loc[("all relations", "unknown"), "n"] == 8
