"""The method many times over, from prompts to the tested matrix (`make test-all`; docs/calibration.md)."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import calibration

pytestmark = pytest.mark.slow
RUNS = 200


@pytest.mark.parametrize("kind", ["planted", "random"])
def test_shuffled_labels_claim_a_significant_cell_in_at_most_5_of_100_runs(kind):
    """Pitfall 26: by the test over facts alone, a random model fails this."""
    found = pd.DataFrame(calibration.null_runs(kind, RUNS))
    assert len(found) == RUNS and found["claims"].mean() <= 0.05
    if kind == "random":
        assert found["claims_by_facts_alone"].mean() > 0.05


@pytest.mark.parametrize("kind", ["planted", "random"])
def test_pitfall_12_shuffled_labels_have_no_neurons_beyond_chance(kind):
    found = pd.DataFrame(calibration.null_maximum_runs(kind, RUNS // 4))
    assert len(found) >= 0.9 * RUNS  # a relation with too few drawn facts has none
    assert found["claims"].mean() <= 0.09  # 5% and two standard errors of so many runs


def test_harm_of_the_size_that_smollm2_shows_is_found_in_9_of_10_runs():
    """SmolLM2 loses 0.12 at home over the demo's eight relations; carried=0.15 plants about as much."""
    found = pd.DataFrame(calibration.power_runs(0.15, RUNS // 4, calibration.DEMO_RELATIONS))
    assert -0.15 <= found["home"].mean() <= -0.09
    assert found["found"].mean() >= 0.9
    assert found["harm_elsewhere"].mean() <= 0.05
