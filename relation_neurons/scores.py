"""Scores: average precision of every neuron for every relation, exact with ties.

    AP = sum over distinct thresholds t of (recall at t - recall before t) * precision at t
    AUROC = share of (positive, negative) pairs with the positive above, half of each tied pair

as scikit-learn defines them: tied activations are one threshold (method 6; pitfall 10).
Each neuron is sorted once; one scan of the sorted prompts then serves every family of positives
and negatives.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from relation_neurons.errors import ActivationError
from relation_neurons.progress import progress_bar

__all__ = [
    "average_precision",
    "family_auroc",
    "family_average_precision",
    "standardised_difference",
]

_CHUNK = 1 << 22  # sort keys held at once: 32 MB


def average_precision(
    activations: Float[Tensor, prompt * neuron] | Int[Tensor, prompt * neuron],
    labels: Int[Tensor, " prompt"],
) -> Float[Tensor, relation * neuron]:
    """Average precision of each neuron as a detector of each relation against all others.

    Args:
        activations: one value per prompt and neuron, of any real dtype, without NaN.
        labels: the relation of each prompt, 0 to R - 1; a negative label is a negative everywhere.

    Returns:
        float64, NaN for a relation without prompts.

    Raises:
        ActivationError: NaN or Inf in the activations.

    >>> average_precision(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([0, 1, 0]))[0]
    tensor([0.8333], dtype=torch.float64)
    """
    if len(labels) != len(activations) or len(labels) == 0:
        raise ActivationError(
            f"{len(labels)} labels for {len(activations)} prompts; expected one each, and one at least."
        )
    activations, labels = activations.detach().cpu(), labels.cpu()
    relations = int(labels.max()) + 1
    membership = (labels[None] == torch.arange(relations)[:, None]).to(torch.int8)
    flat = activations.reshape(len(activations), -1)
    result = family_average_precision(flat, membership)
    return result.reshape(relations, *activations.shape[1:])


def family_average_precision(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "family prompt"],
) -> Float[Tensor, "family neuron"]:
    """Average precision for families that each name their own positives and negatives.

    Args:
        activations: one value per prompt and neuron.
        membership: 1 for a positive of the family, 0 for a negative, -1 for neither.
    """
    return _scan_families(activations, membership, _scan, "average precision")


def family_auroc(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "family prompt"],
) -> Float[Tensor, "family neuron"]:
    """Area under the ROC curve, for families as in `family_average_precision`.

    Returns:
        float64; 0.5 is chance, NaN for a family without positives or without negatives.

    >>> member = torch.tensor([[1, 0, 1, 0]], dtype=torch.int8)
    >>> family_auroc(torch.tensor([[3.0], [2.0], [1.0], [1.0]]), member)
    tensor([[0.6250]], dtype=torch.float64)
    """
    return _scan_families(activations, membership, _scan_pairs, "AUROC")


def _scan_families(
    activations: Tensor, membership: Tensor, scan: Callable[..., None], what: str
) -> Float[Tensor, "family neuron"]:
    """Sorts each neuron once, some neurons at a time, and scans it for every family."""
    prompts, neurons = activations.shape
    if activations.is_floating_point() and not bool(torch.isfinite(activations).all()):
        raise ActivationError("Activations hold NaN or Inf; expected finite values.")
    member = membership.numpy()
    positive = np.ascontiguousarray((member == 1).T.astype(np.int64))
    counted = np.ascontiguousarray((member >= 0).T.astype(np.int64))
    result = np.empty((neurons, len(member)))
    step = max(1, _CHUNK // max(prompts, 1))
    with progress_bar(neurons, what, "neuron") as bar:
        for start in range(0, neurons, step):
            keys = _sort_keys(activations[:, start : start + step])
            _scan_in_threads(scan, keys, positive, counted, result[start : start + step])
            bar.update(len(keys))
    return torch.from_numpy(result.T.copy())


def standardised_difference(
    activations: Float[Tensor, "prompt neuron"], membership: Int8[Tensor, "family prompt"]
) -> tuple[Float[Tensor, "family neuron"], ...]:
    """The standardised mean difference, with the two means it is made of.

        d' = (mean of positives - mean of negatives) / sqrt((variance of positives + of negatives) / 2)

    Returns:
        d_prime, mean_positive, mean_negative. d' is 0 where both variances are.
    """
    positive, positive_var = _moments(activations, membership == 1)
    negative, negative_var = _moments(activations, membership == 0)
    spread = ((positive_var + negative_var) / 2).sqrt()
    floor = 1e-6 * (positive.abs() + negative.abs())  # below it, a variance is rounding
    d_prime = torch.where(spread > floor, (positive - negative) / spread, torch.zeros_like(spread))
    return d_prime, positive, negative


def _moments(
    activations: Float[Tensor, "prompt neuron"], side: Bool[Tensor, "family prompt"]
) -> tuple[Float[Tensor, "family neuron"], Float[Tensor, "family neuron"]]:
    """Mean and variance of each neuron over each family's side, some neurons at a time."""
    weight = side.double()
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1)
    means, variances = [], []
    for chunk in torch.split(activations, max(1, _CHUNK // max(len(activations), 1)), dim=1):
        values = chunk.double()
        mean = weight @ values
        means.append(mean)
        variances.append((weight @ values.square() - mean.square()).clamp(min=0))
    return torch.cat(means, dim=1), torch.cat(variances, dim=1)


def _sort_keys(activations: Tensor) -> np.ndarray:
    """Packs (descending activation, prompt) into one unsigned 64-bit key per neuron and prompt."""
    columns = activations.T
    if columns.dtype in (torch.float64, torch.int32, torch.int64):  # may not fit float32 exactly
        values = np.ascontiguousarray(columns.numpy())
        order = values.argsort(axis=1)
        ordered = np.take_along_axis(values, order, axis=1)
        dense = np.zeros(values.shape, dtype=np.uint32)
        np.put_along_axis(
            dense,
            order[:, 1:],
            (np.diff(ordered, axis=1) != 0).cumsum(axis=1, dtype=np.uint32),
            axis=1,
        )
        bits = dense
    else:
        values = np.ascontiguousarray(columns.float().numpy()) + np.float32(0)  # -0.0 ties with 0.0
        bits = values.view(np.uint32)
        bits = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    keys = (~bits).astype(np.uint64) << np.uint64(32)
    keys |= np.arange(values.shape[1], dtype=np.uint64)
    return keys


def _scan_in_threads(
    scan: Callable[..., None],
    keys: np.ndarray,
    positive: np.ndarray,
    counted: np.ndarray,
    result: np.ndarray,
) -> None:
    """Sorts and scans blocks of neurons side by side.

    numpy's sort and the scan release the GIL. numba's own threads would do too, but its OpenMP
    layer changes the number of threads that torch uses from then on.
    """
    workers = os.cpu_count() or 1
    blocks = np.array_split(np.arange(len(keys)), workers)

    def work(block: np.ndarray) -> None:
        if block.size:
            rows = slice(int(block[0]), int(block[-1]) + 1)
            keys[rows].sort(axis=1)
            scan(keys[rows], positive, counted, result[rows])

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, blocks))


def _scan_loop(
    keys: np.ndarray, positive: np.ndarray, counted: np.ndarray, result: np.ndarray
) -> None:
    """Walks each neuron's sorted prompts once, for all families and all ties."""
    neurons, prompts = keys.shape
    families = positive.shape[1]
    for neuron in range(neurons):
        hits = np.zeros(families, dtype=np.int64)
        before = np.zeros(families, dtype=np.int64)
        seen = np.zeros(families, dtype=np.int64)
        total = np.zeros(families)
        for at in range(prompts):
            key = keys[neuron, at]
            prompt = key & np.uint64(0xFFFFFFFF)
            for family in range(families):
                hits[family] += positive[prompt, family]
                seen[family] += counted[prompt, family]
            last = at + 1 == prompts or (keys[neuron, at + 1] >> np.uint64(32)) != (
                key >> np.uint64(32)
            )
            if last:
                for family in range(families):
                    gained = hits[family] - before[family]
                    if gained:
                        total[family] += gained * (hits[family] / seen[family])
                        before[family] = hits[family]
        for family in range(families):
            result[neuron, family] = total[family] / hits[family] if hits[family] else np.nan


def _pairs_loop(
    keys: np.ndarray, positive: np.ndarray, counted: np.ndarray, result: np.ndarray
) -> None:
    """Walks the same way and counts, threshold by threshold, the negatives above each positive."""
    neurons, prompts = keys.shape
    families = positive.shape[1]
    for neuron in range(neurons):
        hits = np.zeros(families, dtype=np.int64)
        seen = np.zeros(families, dtype=np.int64)
        hits_before = np.zeros(families, dtype=np.int64)
        misses_before = np.zeros(families, dtype=np.int64)
        above = np.zeros(families)
        for at in range(prompts):
            key = keys[neuron, at]
            prompt = key & np.uint64(0xFFFFFFFF)
            for family in range(families):
                hits[family] += positive[prompt, family]
                seen[family] += counted[prompt, family]
            last = at + 1 == prompts or (keys[neuron, at + 1] >> np.uint64(32)) != (
                key >> np.uint64(32)
            )
            if last:
                for family in range(families):
                    misses = seen[family] - hits[family]
                    gained = hits[family] - hits_before[family]
                    above[family] += gained * (misses_before[family] + misses) / 2
                    hits_before[family], misses_before[family] = hits[family], misses
        for family in range(families):
            pairs = hits[family] * (seen[family] - hits[family])
            result[neuron, family] = 1 - above[family] / pairs if pairs else np.nan


# Compiled from the plain function, also where a test's import hook has wrapped it to check shapes.
_scan = numba.njit(nogil=True, cache=True)(inspect.unwrap(_scan_loop))
_scan_pairs = numba.njit(nogil=True, cache=True)(inspect.unwrap(_pairs_loop))
