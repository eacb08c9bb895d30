"""Classes: prompts that are positives and negatives of the same families.

A prompt's class is all that a scan needs to know of it, so the sorted keys carry the class, and relations
cost next to nothing: a prompt adds one hit to each family that its class is a positive of, and one count to
each distinct set of counted prompts (all relations against all others share one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int8, UInt64
from torch import Tensor

__all__ = ["Classes", "group_prompts"]


@dataclass(frozen=True)
class Classes:
    """Prompts by class, and what each class is to each family."""

    labels: UInt64[np.ndarray, " prompt"]
    """The class of each prompt."""
    positive: Bool[np.ndarray, "family class"]
    negative: Bool[np.ndarray, "family class"]
    sizes: Int[np.ndarray, " class"]
    """Prompts of each class."""
    hit: Int[np.ndarray, "class hits"]
    """The families that each class is a positive of; then a family too many, to fill the row."""
    counted: Int[np.ndarray, "class group"]
    """1 where a class is counted, as a positive or a negative, in the families of a group."""
    groups: Int[np.ndarray, " family_and_one"]
    """The group of each family, and of the one too many."""


def group_prompts(membership: Int8[Tensor, "family prompt"]) -> Classes:
    """Groups the prompts that are positives and negatives of the same families."""
    member = membership.numpy()
    kinds, labels, sizes = np.unique(member, axis=1, return_inverse=True, return_counts=True)
    counted, groups = np.unique(kinds >= 0, axis=0, return_inverse=True)
    per_class = (kinds == 1).sum(axis=0)
    hit = np.full((len(sizes), max(1, int(per_class.max()))), len(member), dtype=np.int64)
    classes, families = np.nonzero(kinds.T == 1)
    hit[classes, np.arange(len(classes)) - (per_class.cumsum() - per_class)[classes]] = families
    return Classes(
        labels=labels.reshape(-1).astype(np.uint64),
        positive=np.ascontiguousarray(kinds == 1),
        negative=np.ascontiguousarray(kinds == 0),
        sizes=sizes.astype(np.int64),
        hit=hit,
        counted=np.ascontiguousarray(counted.T.astype(np.int32)),
        groups=np.append(groups, 0).astype(np.int64),
    )
