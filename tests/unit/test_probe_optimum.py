"""The probe's coefficients are those of its objective's minimum."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.preprocessing import StandardScaler

from relation_neurons.ranking.criteria import _probe_coefficients


def test_the_probe_reaches_its_optimum():
    """Against L-BFGS-B on positive and negative parts, which has no kink to get stuck at."""
    rng = np.random.default_rng(0)
    prompts, neurons = 150, 3000
    member = (np.arange(prompts) < 30).astype(np.int8)
    values = rng.normal(size=(prompts, neurons)) + 0.7 * member[:, None] * (np.arange(neurons) < 9)
    values[:, 1::2] += values[:, ::2]  # correlated, as neurons are
    activations = torch.from_numpy(values).float()
    found = _probe_coefficients(activations, torch.from_numpy(member[None]))[0]

    scaled = StandardScaler().fit_transform(activations.numpy()).astype(np.float64)
    sign = np.where(member == 1, 1.0, -1.0)
    weight = np.where(member == 1, prompts / (2 * 30), prompts / (2 * (prompts - 30)))

    def objective(parts: np.ndarray) -> tuple[float, np.ndarray]:
        """scikit-learn's: liblinear counts the intercept among the penalised coefficients."""
        coefficients = parts[: neurons + 1] - parts[neurons + 1 :]
        margins = sign * (scaled @ coefficients[:-1] + coefficients[-1])
        loss = float(weight @ np.logaddexp(0, -margins))
        slope = -weight * sign / (1 + np.exp(margins))
        gradient = np.append(scaled.T @ slope, slope.sum())
        return loss + float(parts.sum()), np.concatenate([gradient + 1, 1 - gradient])

    size = 2 * (neurons + 1)
    options = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 1e-14, "gtol": 1e-9}
    best = minimize(
        objective,
        np.zeros(size),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * size,
        options=options,
    )

    def at(coefficients: np.ndarray) -> float:
        return objective(np.concatenate([coefficients.clip(0), (-coefficients).clip(0)]))[0]

    # The probe's own intercept is not returned: the best one for its coefficients is taken.
    reached = min(at(np.append(found, intercept)) for intercept in np.linspace(-4, 4, 8001))
    assert best.fun <= reached + 1e-9
    assert reached <= best.fun * (1 + 1e-4)
