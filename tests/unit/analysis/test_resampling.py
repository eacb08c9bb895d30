"""Bootstrap intervals: how often they cover the mean."""

from __future__ import annotations

import numpy as np

from relation_neurons.analysis.resampling import bootstrap_interval


def test_the_bootstrap_interval_covers_the_mean():
    """Coverage of nominal 95% intervals over seeded samples of flips."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(120):
        sample = rng.choice([-1.0, 0.0, 1.0], size=40, p=[0.35, 0.6, 0.05])
        low, high = bootstrap_interval(sample, seed=trial)
        hits += low <= -0.3 <= high
    assert hits / 120 > 0.88
    assert bootstrap_interval(np.array([0.5, 0.5])) == (0.5, 0.5)
    assert bootstrap_interval(np.arange(9.0), seed=1) == bootstrap_interval(np.arange(9.0), seed=1)
