"""The criteria: by which value the neurons of a relation are ranked, higher being better.

| criterion | value of a neuron |
| --- | --- |
| `average_precision` | AP of its activation (see `scores`); the paper's, and the default |
| `auroc` | area under the ROC curve of its activation |
| `d_prime` | standardised mean difference, positives - negatives |
| `mean_difference` | mean difference, positives - negatives |
| `activation_entropy` | -entropy over relations of how often it is active (LAPE) |
| `probe` | coefficient in one L1 logistic regression on all neurons, standardised |
| `attribution` | mean gradient x activation of the answer's log-probability, positives - negatives |

Each detection task has its own values (see `detection_tasks`). Two criteria leave tasks out.
`attribution` needs answers on both sides: the prompts of `background` and `nonsense` have none.
`activation_entropy` compares the positives of relations with one another and uses no negatives, so
`background` would equal `specific`; and it takes two relations of the same contrast and language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    ActivationError,
    TooFewFactsError,
    UnknownOptionError,
    near_matches,
)
from relation_neurons.progress import progress_bar
from relation_neurons.ranking.detection_tasks import DetectionTask, task_membership
from relation_neurons.scoring.scores import (
    family_auroc,
    family_average_precision,
    standardised_difference,
)

__all__ = [
    "CRITERIA",
    "activation_entropy",
    "applicable_contrasts",
    "applicable_tasks",
    "criterion_values",
    "require_end",
]

CRITERIA = (
    "average_precision",
    "auroc",
    "d_prime",
    "mean_difference",
    "activation_entropy",
    "probe",
    "attribution",
)

_APPLICABLE = {
    "activation_entropy": ("specific", "unknown", "nonsense"),
    "attribution": ("specific", "unknown"),
}
_BAR = 0.95
"""Share of all probabilities below the one that a neuron must exceed to belong to a relation."""
_PROBE_C = 1.0


def applicable_contrasts(by: str, contrasts: Sequence[str]) -> tuple[str, ...]:
    """Returns those of the contrasts that a criterion can rank.

    Raises:
        UnknownOptionError: the criterion does not exist.

    >>> applicable_contrasts("attribution", ("specific", "background"))
    ('specific',)
    """
    if by not in CRITERIA:
        raise UnknownOptionError(f"No criterion {by!r}. {near_matches(by, CRITERIA)}")
    return tuple(contrast for contrast in contrasts if contrast in _APPLICABLE.get(by, contrasts))


def applicable_tasks(
    by: str, tasks: Sequence[DetectionTask], contrasts: Sequence[str]
) -> list[DetectionTask]:
    """Returns the tasks of these contrasts that a criterion can rank.

    Raises:
        TooFewFactsError: there is none.
    """
    groups = Counter((task.contrast, task.language) for task in tasks)
    least = 2 if by == "activation_entropy" else 1
    applicable = [
        task
        for task in tasks
        if task.contrast in contrasts and groups[task.contrast, task.language] >= least
    ]
    if not applicable:
        raise TooFewFactsError(
            f"No relation can be ranked by {by}: none has enough prompts for the contrasts "
            f"{', '.join(contrasts)}{', or there are not two to compare' if least > 1 else ''}. Ask for "
            "other contrasts, or add relations or known facts."
        )
    return applicable


def require_end(by: str, bottom: bool) -> None:
    """Refuses the bottom of a criterion that has none.

    Raises:
        UnknownOptionError: the bottom of `activation_entropy`, as a neuron that is active everywhere is
            not the opposite of one that is active in a single relation.
    """
    if bottom and by == "activation_entropy":
        raise UnknownOptionError(
            "activation_entropy has no bottom: a neuron that is active in every relation is not "
            "anti-correlated with one. Use another criterion, or bottom=False."
        )


def criterion_values(
    by: str,
    table: ActivationTable,
    tasks: Sequence[DetectionTask],
    *,
    attribution: Float[Tensor, "prompt layer d_mlp"] | None = None,
) -> Float[np.ndarray, "task neuron"]:
    """Returns every neuron's value for every task, higher being better.

    AP, AUROC and entropy are rounded to 1e-6, so that values that differ by rounding alone are tied.

    Args:
        by: one of `CRITERIA`.
        table: pooled activations; `activation_entropy` needs its `active`.
        tasks: one task or more, of the table's prompts.
        attribution: what `collect_attribution` returns for the table's prompts.

    Returns:
        float64; NaN where the criterion has no value for a neuron (see `activation_entropy`).

    Raises:
        ActivationError: what the criterion needs was not collected, or not for these prompts.
        UnknownOptionError: the criterion does not exist.
    """
    flat, membership = table.values.flatten(1), task_membership(tasks)
    if by == "average_precision":
        return family_average_precision(flat, membership).numpy().round(6)
    if by == "auroc":
        return family_auroc(flat, membership).numpy().round(6)
    if by == "d_prime":
        return standardised_difference(flat, membership)[0].numpy()
    if by == "mean_difference":
        return _mean_difference(flat, membership)
    if by == "activation_entropy":
        return _entropy_values(table, tasks, membership)
    if by == "probe":
        return _probe_coefficients(flat, membership)
    if by == "attribution":
        return _attribution_values(table, membership, attribution)
    raise UnknownOptionError(f"No criterion {by!r}. {near_matches(by, CRITERIA)}")


def activation_entropy(
    probability: Float[np.ndarray, "relation neuron"],
) -> Float[np.ndarray, "relation neuron"]:
    """Entropy over relations of how often a neuron is active, where it belongs to the relation.

        H = - sum over relations r of q_r ln q_r,    q_r = p_r / (sum over relations of p)

    Tang et al. 2024 (arXiv 2402.16438), section 2.2, with their code's bar: a neuron belongs to the
    relations where p_r is above the 95th percentile of all probabilities, and to none where none is.
    They then take the 1% of neurons (5% in the code) with the lowest entropy; here every neuron that
    belongs to a relation is ranked in it.

    Args:
        probability: share of a relation's tokens at which the activation function's output is above 0.

    Returns:
        The neuron's entropy in nats, NaN where it does not belong to the relation.

    >>> often = np.full((2, 20), 0.1)
    >>> often[:, 3] = 0.9, 0.0
    >>> found = activation_entropy(often)
    >>> float(found[0, 3]), int(np.isfinite(found).sum())
    (0.0, 1)
    """
    total = probability.sum(axis=0)
    share = probability / np.where(total > 0, total, 1)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum(axis=0) + 0.0
    at = max(round(probability.size * _BAR), 1) - 1
    bar = np.partition(probability.ravel(), at)[at]
    return np.where(probability > bar, entropy, np.nan)


def _mean_difference(
    values: Float[Tensor, "prompt neuron"], membership: Int8[Tensor, "task prompt"]
) -> Float[np.ndarray, "task neuron"]:
    _, positive, negative = standardised_difference(values, membership)
    return (positive - negative).numpy()


def _entropy_values(
    table: ActivationTable, tasks: Sequence[DetectionTask], membership: Int8[Tensor, "task prompt"]
) -> Float[np.ndarray, "task neuron"]:
    if table.active is None or table.token_counts is None:
        raise ActivationError(
            "activation_entropy needs the share of tokens at which each neuron is active, which the "
            "table does not hold. Collect it with collect_activations(…, active=True)."
        )
    counts = table.token_counts.double()
    tokens = table.active.flatten(1).double() * counts[:, None]
    positives = (membership == 1).double()
    probability = ((positives @ tokens.round()) / (positives @ counts)[:, None]).numpy()
    values = np.full(probability.shape, np.nan)
    groups = [(task.contrast, task.language) for task in tasks]
    for group in dict.fromkeys(groups):
        rows = [i for i, found in enumerate(groups) if found == group]
        values[rows] = -activation_entropy(probability[rows])
    return values.round(6) + 0.0


def _probe_coefficients(
    values: Float[Tensor, "prompt neuron"], membership: Int8[Tensor, "task prompt"]
) -> Float[np.ndarray, "task neuron"]:
    """Fits one regression per task, with a fixed solver seed, so that the result is always the same."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    found = np.empty((len(membership), values.shape[1]))
    with progress_bar(len(membership), "probe", "regression") as bar:
        for i, member in enumerate(membership.numpy()):
            counted = member >= 0
            scaled = StandardScaler().fit_transform(values[torch.from_numpy(counted)].numpy())
            probe = LogisticRegression(
                l1_ratio=1.0,
                C=_PROBE_C,
                solver="liblinear",
                class_weight="balanced",
                max_iter=1000,
                random_state=0,
            )
            found[i] = probe.fit(scaled, member[counted] == 1).coef_[0]
            bar.update(1)
    return found


def _attribution_values(
    table: ActivationTable,
    membership: Int8[Tensor, "task prompt"],
    attribution: Float[Tensor, "prompt layer d_mlp"] | None,
) -> Float[np.ndarray, "task neuron"]:
    if attribution is None:
        raise ActivationError(
            "by='attribution' needs the attribution of each prompt. Pass attribution="
            "collect_attribution(model, prompts), with the prompts, pool and site of the table."
        )
    if attribution.shape != table.values.shape:
        raise ActivationError(
            f"The attribution has the shape {tuple(attribution.shape)}, the table "
            f"{tuple(table.values.shape)}; expected one for the same prompts and site."
        )
    flat = attribution.flatten(1)
    known = torch.isfinite(flat).all(dim=1)
    if bool((membership >= 0).any(dim=0)[~known].any()):
        raise ActivationError(
            "The attribution is missing for prompts that the ranking uses. Collect it for the same prompts "
            "as the activations."
        )
    return _mean_difference(flat[known], membership[:, known])
