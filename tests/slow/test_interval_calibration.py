"""Every simulation of docs/calibration.md's intervals, with other draws (`make test-all`)."""

from __future__ import annotations

import sys

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import interval_calibration as calibration

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "scenario", calibration.scenarios(), ids=lambda one: f"{one.group}, {one.what}"
)
def test_intervals_hold_the_truth_in_93_of_100(scenario):
    found = calibration.measure(scenario, 2000, seed=1000)
    assert found["holds"] >= calibration.GOAL and found["least_width"] > 0
