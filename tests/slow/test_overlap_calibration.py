"""Overlap on noise, in many runs (`make test-all`; docs/calibration.md)."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import overlap_calibration as calibration

pytestmark = pytest.mark.slow
RUNS = 60


@pytest.mark.parametrize("noise", calibration.NOISES)
def test_noise_shares_what_is_expected_and_5_of_100_pairs_have_a_small_p(noise):
    """The slack is three standard errors of runs, which are independent where their pairs are not."""
    cells = pd.concat([calibration.judged(noise, 1000 + seed) for seed in range(RUNS)])
    for (contrast, pairs), part in cells.groupby(["score", "pairs"]):
        runs = part.groupby("seed")
        gap = runs.apply(lambda run: (run["shared"] - run["expected"]).mean())
        slack = 3 * gap.sem()
        assert abs(gap.mean()) <= 0.1 * part["shared"].mean() + slack, (contrast, pairs)
        share = runs.apply(lambda run: (run["p_value"] <= 0.05).mean())
        assert share.mean() <= 0.05 + 3 * share.sem(), (contrast, pairs)
        total = (runs["p_total"].first() <= 0.05).mean()
        assert total <= 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5, contrast
