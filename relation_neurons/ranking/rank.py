"""Rank the neurons of each relation by how well their activation detects its prompts.

Four rankings per relation, from one pass over the prompts (method 3 and 6): `specific`, `background`,
`unknown` and `nonsense`, each with its own positives and negatives (see `detection_tasks`).

The criterion is a separate choice, the same for all of them: average precision, or one of its rivals
(see `criteria`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int8
from torch import Tensor

from relation_neurons.activations.table import ActivationTable
from relation_neurons.errors import (
    DoseError,
    LeftOutWarning,
    TooFewFactsError,
    UnknownOptionError,
    near_matches,
)
from relation_neurons.ranking.criteria import (
    applicable_contrasts,
    applicable_tasks,
    criterion_values,
    require_end,
)
from relation_neurons.ranking.detection_tasks import (
    CONTRASTS,
    DetectionTask,
    detection_tasks,
    task_membership,
)
from relation_neurons.ranking.known import advice_for_ranking, has_shots, left_out_relations
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.relation import MIN_KNOWN
from relation_neurons.scoring.scores import (
    family_average_precision,
    family_scores,
    standardised_difference,
)
from relation_neurons.version import renamed

__all__ = ["rank_neurons"]

ORDERS = ("d_prime", "index")


@renamed(scores="contrasts")
def rank_neurons(
    table: ActivationTable,
    recall: pd.DataFrame,
    *,
    by: str = "average_precision",
    bottom: bool = False,
    contrasts: Sequence[str] = CONTRASTS,
    attribution: Float[Tensor, "prompt layer d_mlp"] | None = None,
    keep: int | None = None,
    order: str = "d_prime",
    min_known: int = MIN_KNOWN,
) -> Ranking:
    """Ranks every neuron for every relation under every contrast.

    Order: the criterion's value (AP rounded to 1e-6), then the standardised difference
    (skipped by `order="index"`, as in the published code), then (layer, neuron) (method 7; pitfall 11).
    Neurons without a value come last.

    Args:
        table: pooled activations of the detection prompts.
        recall: what `measure_recall` returns, for both sides.
        by: the criterion; one of `criteria.CRITERIA`. Contrasts that it cannot rank are left out.
        bottom: ranks from the other end, in exactly the reverse order: the most anti-correlated
            neurons. It holds half of the neurons at most, so that no neuron is in it and in a top set
            of the same size (pitfall 14).
        contrasts: the contrasts to rank; all of them by default.
        attribution: what `collect_attribution` returns for the table's prompts; for `by="attribution"`.
        keep: ranked neurons kept per relation and contrast; 2% of them, at least 1,000, by default.
        order: `d_prime` or `index`.
        min_known: known facts that a relation needs on either side; one with fewer is left out by name.

    Warns:
        LeftOutWarning: some relations have too few known facts; each is named with its reason, which
            `left_out` of the ranking keeps.

    Raises:
        TooFewFactsError: every relation is left out, or there is only one and no neutral prompt.
        ActivationError: the criterion needs what was not collected.
        UnknownOptionError: the criterion, contrast or order does not exist, or the criterion ranks none
            of the contrasts.
    """
    if order not in ORDERS:
        raise UnknownOptionError(f"No order {order!r}. {near_matches(order, ORDERS)}")
    wanted = _wanted_contrasts(by, bottom, contrasts)
    left_out = left_out_relations(recall, min_known)
    if keep is not None and keep < 1:
        raise DoseError(f"keep is {keep}; expected at least one neuron.")
    tasks = detection_tasks(table.prompts, recall, min_known=min_known, left_out=left_out)
    if not tasks:
        raise TooFewFactsError(_nothing_left(left_out, table.prompts))
    if left_out:
        said = _some_left_out(left_out, recall, table.prompts)
        warnings.warn(said, LeftOutWarning, stacklevel=2)
    tasks = applicable_tasks(by, tasks, wanted)
    membership = task_membership(tasks)
    layers, width = table.values.shape[1:]
    flat = table.values.flatten(1)
    value, d_prime, positive, negative = _values(by, table, tasks, membership, attribution)
    neurons = _neuron_frame(table)
    most = layers * width // (2 if bottom else 1)
    keep = min(keep or max(1000, layers * width // 50), most)
    tie = d_prime if order == "d_prime" else np.zeros_like(d_prime)
    kept = np.stack([_order(*row, bottom)[:keep] for row in zip(value, tie, strict=True)])
    ap = value if by == "average_precision" else _kept_precision(flat, membership, kept)
    frames = []
    for i, task in enumerate(tasks):
        best = kept[i]
        frames.append(
            pd.DataFrame(
                {
                    "score": task.contrast,
                    "relation": task.relation,
                    "language": task.language,
                    "rank": np.arange(1, keep + 1, dtype=np.int32),
                    "layer": (best // width).astype(np.int32),
                    "neuron": (best % width).astype(np.int32),
                    "ap": ap[i, best],
                    "d_prime": d_prime[i, best].astype(np.float32),
                    "mean_positive": positive[i, best].astype(np.float32),
                    "mean_negative": negative[i, best].astype(np.float32),
                    "is_sink": neurons["is_sink"].to_numpy()[best],
                    "value": value[i, best],
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    shots = has_shots(table.prompts)
    return Ranking(frame, neurons, table.site, left_out, by=by, bottom=bottom, shots=shots)


def _nothing_left(left_out: Mapping[str, str], prompts: pd.DataFrame) -> str:
    if not left_out:
        return (
            "No relation can be ranked: there are no prompts to tell it from. Add a second relation, or "
            "neutral prompts (make_prompts(…, background=True))."
        )
    return f"No relation is left to rank ({_reasons(left_out)}). {advice_for_ranking(prompts)}"


def _some_left_out(left_out: Mapping[str, str], recall: pd.DataFrame, prompts: pd.DataFrame) -> str:
    count = len(recall[["relation", "language"]].drop_duplicates())
    return (
        f"{len(left_out)} of {count} relations {'is' if len(left_out) == 1 else 'are'} left out of the "
        f"ranking, and of figures made from it ({_reasons(left_out)}). {advice_for_ranking(prompts)}"
    )


def _reasons(left_out: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in left_out.items())


def _wanted_contrasts(by: str, bottom: bool, contrasts: Sequence[str]) -> tuple[str, ...]:
    """Returns the contrasts asked for that the criterion can rank."""
    for contrast in contrasts:
        if contrast not in CONTRASTS:
            raise UnknownOptionError(
                f"No contrast {contrast!r}. {near_matches(contrast, CONTRASTS)}"
            )
    wanted = applicable_contrasts(by, contrasts)
    require_end(by, bottom)
    if not wanted:
        raise UnknownOptionError(
            f"{by} cannot rank the contrast {', '.join(contrasts) or '(none)'}; it ranks "
            f"{', '.join(applicable_contrasts(by, CONTRASTS))}."
        )
    return wanted


def _values(
    by: str,
    table: ActivationTable,
    tasks: Sequence[DetectionTask],
    membership: Int8[Tensor, "task prompt"],
    attribution: Float[Tensor, "prompt layer d_mlp"] | None,
) -> tuple[Float[np.ndarray, "task neuron"], ...]:
    """Returns the criterion's values, the standardised differences and the two means of those."""
    flat = table.values.flatten(1)
    if by == "average_precision":  # one pass for both
        found = family_scores(flat, membership)
        ap = found.average_precision.round(6)
        return ap, found.d_prime, found.mean_positive, found.mean_negative
    value = criterion_values(by, table, tasks, attribution=attribution)
    parts = (part.numpy() for part in standardised_difference(flat, membership))
    return value, *parts


def _order(
    value: Float[np.ndarray, " neuron"], tie: Float[np.ndarray, " neuron"], bottom: bool
) -> np.ndarray:
    """Sorts neurons from the best, or from the lowest in exactly the reverse order."""
    filled = np.where(np.isnan(value), -np.inf, value)
    order = np.lexsort((-tie, -filled))  # stable: the index decides last
    return order[::-1] if bottom else order


def _kept_precision(
    flat: Float[Tensor, "prompt neuron"], membership: torch.Tensor, kept: np.ndarray
) -> Float[np.ndarray, "task neuron"]:
    """Returns the AP of the neurons that any task keeps, and NaN for the others, which no table shows."""
    some = np.unique(kept)
    ap = np.full((len(membership), flat.shape[1]), np.nan)
    ap[:, some] = family_average_precision(flat[:, some], membership).numpy().round(6)
    return ap


def _neuron_frame(table: ActivationTable) -> pd.DataFrame:
    _, layers, width = table.values.shape
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(layers, dtype=np.int32), width),
            "neuron": np.tile(np.arange(width, dtype=np.int32), layers),
            "mean": table.mean.flatten().numpy(),
            "contribution": table.contribution.flatten().numpy(),
            "is_sink": table.is_sink.flatten().numpy(),
        }
    )
