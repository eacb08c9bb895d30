"""The job of reading neutral text under each ablated set and comparing it with the intact model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.ablation.hooks import Ablation
from relation_neurons.ablation.sets import AblatedSets
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import AnswerError
from relation_neurons.inference.batches import Batch
from relation_neurons.inference.forward import final_residual, model_batches, tree_residual
from relation_neurons.inference.logits import IntactPredictions
from relation_neurons.inference.out_of_memory import run_halving
from relation_neurons.inference.prefix_trees import TOKENS_PER_PROMPT, TreeBatch
from relation_neurons.relations.prompts import padding_token

__all__ = ["INTACT_BYTES", "TextJob"]

INTACT_BYTES = 1 << 29
"""What the intact model's probabilities may take (the package's own text takes 0.1 GB with a
vocabulary of 49,152); above it they are computed again for every ablated set."""


@dataclass(frozen=True)
class TextJob:
    """The same text, read under one ablated set after another."""

    sets: AblatedSets
    text: tuple[str, ...]
    """Paragraphs, each read on its own."""
    batch_size: int

    def keys(self) -> list[str]:
        """See `Job`."""
        return self.sets.keys(self.text, self.batch_size)

    def begin(self, model: HookedModel) -> Callable[[int], pd.DataFrame]:
        """Reads the text with the intact model; returns what reads it under the set at an index."""
        intact = _Intact.start(model, self.text, self.batch_size)

        def read(index: int) -> pd.DataFrame:
            with self.sets.ablated(model, index) as ablation:
                numbers = intact.compare(model, ablation)
            return pd.DataFrame([{**self.sets.conditions[index].labels(), **numbers}])

        return read

    def to_message(self) -> dict[str, Any]:
        """See `Job`."""
        return {**self.sets.to_message(), "text": list(self.text), "batch_size": self.batch_size}

    @classmethod
    def from_message(cls, data: dict[str, Any]) -> TextJob:
        """Reads what `to_message` returned."""
        return cls(AblatedSets.from_message(data), tuple(data["text"]), data["batch_size"])


@dataclass(frozen=True)
class _Part:
    """Some paragraphs, with what the intact model predicts there."""

    batch: Batch | TreeBatch
    expected: IntactPredictions

    @property
    def rows(self) -> Int[np.ndarray, " batch"]:
        """Where the paragraphs stand among all."""
        return self.batch.rows

    @property
    def tokens(self) -> Int[Tensor, "batch pos"]:
        """The paragraphs' tokens."""
        return self.batch.tokens

    @property
    def half_batch_size(self) -> int | None:
        """The batch size with which no part has more paragraphs than its halves."""
        return self.batch.half_batch_size

    def halves(self) -> tuple[_Part, _Part] | None:
        """Both halves; None for one paragraph."""
        batches: Sequence[Batch | TreeBatch] | None = self.batch.halves()
        if batches is None:
            return None
        at = len(_predicted(batches[0])[0])
        parts = []
        for batch, reads in zip(batches, (slice(at), slice(at, None)), strict=True):
            parts.append(_Part(batch, self.expected.at(reads)))
        return parts[0], parts[1]


@dataclass(frozen=True)
class _Intact:
    """The text in batches, with what the intact model predicts there."""

    parts: list[_Part]

    @classmethod
    def start(cls, model: HookedModel, text: Sequence[str], batch_size: int) -> _Intact:
        """Tokenises the text and reads it with the intact model."""
        pieces = _pieces(model, text)
        batches = _batches(model, pieces, batch_size)
        size = 4 * sum(len(piece) - 1 for piece in pieces) * model.cfg.d_vocab

        def read(batch: Batch | TreeBatch) -> _Part:
            residual = _read(model, batch)
            targets = _predicted(batch)[1].to(residual.device)
            keep = size <= INTACT_BYTES
            return _Part(batch, IntactPredictions.of(model, residual, targets, keep=keep))

        return cls([part for _, part in run_halving(model, batches, read)])

    def compare(self, model: HookedModel, ablation: Ablation) -> dict[str, int | float]:
        """Reads the text again under an ablation."""

        def read(part: _Part) -> tuple[Tensor, int]:
            batch = part.batch
            if isinstance(batch, Batch):
                ablation.start(batch, batch.tokens.shape[1] - batch.lengths)
            sums = part.expected.compare(model, _read(model, batch))
            return sums, len(part.expected.targets)

        found = [found for _, found in run_halving(model, self.parts, read)]
        tokens = sum(count for _, count in found)
        total = torch.stack([sums for sums, _ in found]).sum(dim=0)
        intact, ablated_, kl = (float(part) / tokens for part in total)
        return {
            "tokens": tokens,
            "logloss_intact": intact,
            "logloss": ablated_,
            "logloss_change": ablated_ - intact,
            "kl": kl,
        }


def _pieces(model: HookedModel, text: Sequence[str]) -> list[list[int]]:
    """Tokenises each paragraph, in pieces that the model's context can hold."""
    if model.tokenizer is None:
        raise AnswerError(
            "The model has no tokenizer; give one with load_model(model, tokenizer=…)."
        )
    size = model.cfg.n_ctx
    whole = [list(model.tokenizer(one)["input_ids"]) for one in text]
    cut = [ids[at : at + size] for ids in whole for at in range(0, len(ids), size)]
    pieces = [ids for ids in cut if len(ids) > 1]
    if not pieces:
        raise AnswerError("The text has no token to predict; expected a paragraph or more.")
    return pieces


def _batches(
    model: HookedModel, pieces: Sequence[Sequence[int]], batch_size: int
) -> list[Batch | TreeBatch]:
    """The text in batches; of prefix trees, with room for `batch_size` of the longest paragraphs."""
    longest = max(map(len, pieces))
    return model_batches(
        model,
        pieces,
        [0] * len(pieces),
        batch_size=batch_size,
        tree_batch_size=math.ceil(batch_size * longest / TOKENS_PER_PROMPT),
        pad_id=padding_token(model.tokenizer),
    )


def _predicted(batch: Batch | TreeBatch) -> tuple[Int[Tensor, " read"], Int[Tensor, " read"]]:
    """Where each token but a piece's first is predicted, in the flattened batch, and that token."""
    paths = batch.paths()
    at, of = (
        torch.tensor([token for path in paths for token in path[cut]], device=batch.tokens.device)
        for cut in (slice(-1), slice(1, None))
    )
    return at, batch.tokens.flatten()[of]


def _read(model: HookedModel, batch: Batch | TreeBatch) -> Float[Tensor, "read d_model"]:
    with torch.inference_mode():
        if isinstance(batch, TreeBatch):
            residual, _ = tree_residual(model, batch)
        else:
            residual = final_residual(model, batch.tokens, batch.mask)
        return residual.flatten(0, 1)[_predicted(batch)[0].to(residual.device)]
