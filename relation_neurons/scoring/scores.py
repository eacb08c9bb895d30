"""Average precision, AUROC and d' of every neuron in every detection task, exact with ties.

    AP = sum over distinct thresholds t of (recall at t - recall before t) * precision at t
    AUROC = share of (positive, negative) pairs with the positive above, half of each tied pair

as scikit-learn defines them: tied activations are one threshold (method 6; pitfall 10).
Each neuron is read and sorted once; one scan of the sorted prompts then serves every detection task, a
set of positives and negatives (see `radix_sort` and `kernels`). Beside the activations, which may be a
memory-mapped file, memory holds the scores and a few megabytes per thread.

Activations on a CUDA device are scored there (see `scores_cuda`); results are on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from relation_neurons.errors import ActivationError
from relation_neurons.scoring import scores_cuda
from relation_neurons.scoring.inputs import Columns, group_prompts, in_threads
from relation_neurons.scoring.kernels import Scores, empty_scores, score_columns

__all__ = [
    "average_precision",
    "family_auroc",
    "family_average_precision",
    "family_scores",
    "standardised_difference",
]

_CHUNK = 1 << 20  # activations that a thread takes at a time


def average_precision(
    activations: Float[Tensor, " prompt *neuron"] | Int[Tensor, " prompt *neuron"],
    labels: Int[Tensor, " prompt"],
) -> Float[Tensor, " relation *neuron"]:
    """Computes the average precision of each neuron as a detector of each relation against all others.

    Args:
        activations: one value per prompt and neuron, of any real dtype, without NaN.
        labels: the relation of each prompt, 0 to R - 1; a prompt with a label below 0 is a negative of all.

    Returns:
        float64, NaN for a relation without prompts.

    Raises:
        ActivationError: the activations contain NaN or Inf, or labels and prompts differ in number.

    >>> average_precision(torch.tensor([[3.0], [2.0], [1.0]]), torch.tensor([0, 1, 0]))[0]
    tensor([0.8333], dtype=torch.float64)
    """
    if len(labels) != len(activations) or len(labels) == 0:
        raise ActivationError(
            f"Found {len(labels)} labels for {len(activations)} prompts; expected one each, and at least one."
        )
    labels = labels.cpu()
    relations = int(labels.max()) + 1
    membership = (labels[None] == torch.arange(relations)[:, None]).to(torch.int8)
    flat = activations.reshape(len(activations), -1)
    result = family_average_precision(flat, membership)
    return result.reshape(relations, *activations.shape[1:])


def family_scores(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
) -> Scores:
    """Computes average precision and standardised difference in one pass over the activations.

    Args:
        activations: one value per prompt and neuron.
        membership: 1 for a positive of the task, 0 for a negative, -1 for neither.

    Returns:
        float64 arrays; `auroc` is empty.

    Raises:
        ActivationError: the activations contain NaN or Inf, or there is no prompt.
    """
    return _scored(activations, membership, "average_precision", "d_prime")


def family_average_precision(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
) -> Float[Tensor, "task neuron"]:
    """Computes average precision in detection tasks, each with its own positives and negatives.

    Args:
        activations: one value per prompt and neuron.
        membership: 1 for a positive of the task, 0 for a negative, -1 for neither.
    """
    found = _scored(activations, membership, "average_precision")
    return torch.from_numpy(found.average_precision)


def family_auroc(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
) -> Float[Tensor, "task neuron"]:
    """Computes the area under the ROC curve, in tasks as in `family_average_precision`.

    Returns:
        float64; 0.5 is chance, NaN for a task without positives or without negatives.

    >>> member = torch.tensor([[1, 0, 1, 0]], dtype=torch.int8)
    >>> family_auroc(torch.tensor([[3.0], [2.0], [1.0], [1.0]]), member)
    tensor([[0.6250]], dtype=torch.float64)
    """
    return torch.from_numpy(_scored(activations, membership, "auroc").auroc)


def standardised_difference(
    activations: Float[Tensor, "prompt neuron"] | Int[Tensor, "prompt neuron"],
    membership: Int8[Tensor, "task prompt"],
) -> tuple[Float[Tensor, "task neuron"], ...]:
    """Computes the standardised mean difference and the two means it is made of.

        d' = (mean of positives - mean of negatives) / sqrt((variance of positives + of negatives) / 2)

    Returns:
        d_prime, mean_positive, mean_negative. d' is 0 if both variances are.
    """
    found = _scored(activations, membership, "d_prime")
    parts: tuple[np.ndarray, ...] = (found.d_prime, found.mean_positive, found.mean_negative)
    return tuple(torch.from_numpy(part) for part in parts)


def _scored(activations: Tensor, membership: Int8[Tensor, "task prompt"], *wanted: str) -> Scores:
    """Scores the neurons part by part, on the device of the activations."""
    prompts, neurons = activations.shape
    if prompts == 0:
        raise ActivationError("There is no prompt to score on; expected at least one.")
    classes = group_prompts(membership.cpu())
    found = empty_scores(len(membership), neurons, wanted)
    if activations.is_cuda:
        finite = scores_cuda.score(activations.detach(), classes, found)
    else:
        columns = Columns(activations.cpu())
        finite = in_threads(
            lambda start, stop: score_columns(columns, classes, found, start, stop),
            neurons,
            max(1, _CHUNK // prompts),
            " and ".join(name.replace("_", " ") for name in wanted),
        )
    if not finite:
        raise ActivationError("Activations contain NaN or Inf; expected finite values.")
    return found
