"""Batches of prefix trees, in which a beginning that several sequences share is run once.

In a causal model the residual stream at a token depends on the tokens before it and on nothing else,
so `The capital of France is` and `The capital of Spain is` need `The capital of` once. A row of such a
batch is a tree of tokens; each token sees its own ancestors. Sequences that are equal, several answers
of one prompt, the prompts of a template and the demonstrations of few-shot prompts all share what
they begin with, and rows are filled with trees until little padding is left.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from relation_neurons.inference.batches import left_padded
from relation_neurons.relations.prompts import common_start

__all__ = ["TOKENS_PER_PROMPT", "TreeBatch", "make_tree_batches"]

TOKENS_PER_PROMPT = 16
"""Tokens of a batch for each prompt of `batch_size`: batches are filled by tokens."""

_PAIR_COST = 1 / 1500
"""What one (query, key) pair of a row costs beside one token's matrix products."""


@dataclass(frozen=True, eq=False)
class TreeBatch:
    """Rows of tokens, each row one or more trees; padding stands on the right."""

    rows: Int[np.ndarray, " sequence"]
    """Where each sequence stands in the list that was batched."""
    at: tuple[tuple[int, tuple[int, ...]], ...]
    """For each sequence its row of tokens, and the column of each of its tokens."""
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """True where a token is real."""
    depth: Int[Tensor, "batch pos"]
    """How many tokens stand before each one in its sequence; 0 at padding."""
    answering: Bool[Tensor, "batch pos"]
    """True at each prompt's last token and at every answer token."""
    visible: Bool[Tensor, "batch pos pos"]
    """Which tokens (last axis) each token attends to: its ancestors and itself."""

    def paths(self) -> list[list[int]]:
        """Where each sequence's tokens stand in the flattened batch."""
        width = self.tokens.shape[1]
        return [[row * width + column for column in columns] for row, columns in self.at]

    def padded_paths(
        self,
    ) -> tuple[Int[Tensor, "sequence longest"], Bool[Tensor, "sequence longest"]]:
        """The same as a table, left-padded with 0, and its mask."""
        flat, mask = left_padded(self.paths(), 0)
        device = self.tokens.device
        return torch.from_numpy(flat).to(device), torch.from_numpy(mask).to(device)

    @property
    def half_batch_size(self) -> int | None:
        """The batch size with which no batch of such rows has more of them than its halves.

        None where it is one row, which is as wide as sharing makes it worth, whatever the batch size.
        """
        count, width = self.tokens.shape
        return None if count == 1 else max(1, (count + 1) // 2 * width // TOKENS_PER_PROMPT)

    def halves(self) -> tuple[TreeBatch, TreeBatch] | None:
        """Returns both halves of the sequences: by rows, or within the only row; None for one sequence."""
        if len(self.at) < 2:
            return None
        rows: list[list[int]] = [[] for _ in range(len(self.tokens))]
        for member, (row, _) in enumerate(self.at):
            rows[row].append(member)
        if len(rows) == 1:
            middle = len(rows[0]) // 2
            return self._part([rows[0][:middle]]), self._part([rows[0][middle:]])
        middle = len(rows) // 2
        return self._part(rows[:middle]), self._part(rows[middle:])

    def _part(self, rows: list[list[int]]) -> TreeBatch:
        """A batch of some of its sequences, in rows of their own."""
        tokens, answering = (part.cpu().numpy() for part in (self.tokens, self.answering))
        keys = [
            tuple((int(tokens[row, column]), bool(answering[row, column])) for column in columns)
            for row, columns in self.at
        ]
        width = max(len({c for member in row for c in self.at[member][1]}) for row in rows)
        part = _batch(keys, rows, width, 0, self.tokens.device)
        return replace(part, rows=self.rows[part.rows])


def make_tree_batches(
    sequences: Sequence[Sequence[int]],
    answer_starts: Sequence[int] | None = None,
    *,
    batch_size: int,
    pad_id: int,
    device: Any = "cpu",
) -> list[TreeBatch]:
    """Batches sequences as prefix trees, the widest rows first.

    Args:
        sequences: tokens.
        answer_starts: the position of each prompt's last token; tokens are shared only where both
            sequences have them before it, or both behind. None: there are no answers.
        batch_size: a batch holds `TOKENS_PER_PROMPT` times as many tokens, or one row.
        pad_id: of the tokens that fill a row up.
        device: of the batches.
    """
    starts = answer_starts if answer_starts is not None else [len(s) for s in sequences]
    keys = [
        tuple((token, at >= start) for at, token in enumerate(sequence))
        for sequence, start in zip(sequences, starts, strict=True)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    shared = [0, *(common_start(keys[a], keys[b]) for a, b in itertools.pairwise(order))]
    new = [(len(keys[i]), len(keys[i]) - common) for i, common in zip(order, shared, strict=True)]
    budget = TOKENS_PER_PROMPT * batch_size
    best = min((_layout(new, width, budget) for width in _widths(new)), key=_cost)
    return [
        _batch(keys, [[order[i] for i in row] for row in rows], width, pad_id, device)
        for rows, width in best
    ]


_Layout = list[tuple[list[list[int]], int]]
"""Batches of rows of places in the sorted order, each with its width."""


def _widths(new: list[tuple[int, int]]) -> range:
    """Row widths worth a try: wide rows share long prefixes, narrow ones have fewer pairs."""
    longest = max((length for length, _ in new), default=1)
    return range(longest, longest + 513, 8)


def _layout(new: list[tuple[int, int]], width: int, budget: int) -> _Layout:
    """Fills rows in sorted order, so that each sequence shares most with the one before it."""
    filled: list[tuple[int, list[int]]] = []
    for i, (length, more) in enumerate(new):
        if filled and filled[-1][0] + more <= width:
            used, members = filled[-1]
            members.append(i)
            filled[-1] = (used + more, members)
        else:
            filled.append((length, [i]))
    filled.sort(key=lambda row: -row[0])
    batches: _Layout = []
    at = 0
    while at < len(filled):
        widest = filled[at][0]
        count = max(budget // widest, 1)
        batches.append(([row for _, row in filled[at : at + count]], widest))
        at += count
    return batches


def _cost(layout: _Layout) -> float:
    return sum(len(rows) * width * (1 + width * _PAIR_COST) for rows, width in layout)


def _batch(
    keys: list[tuple[tuple[int, bool], ...]],
    rows: list[list[int]],
    width: int,
    pad_id: int,
    device: Any,
) -> TreeBatch:
    tokens = np.full((len(rows), width), pad_id, dtype=np.int64)
    depth = np.zeros((len(rows), width), dtype=np.int64)
    mask, answering = (np.zeros((len(rows), width), dtype=bool) for _ in range(2))
    visible = np.repeat(np.eye(width, dtype=bool)[None], len(rows), axis=0)
    at: list[tuple[int, tuple[int, ...]]] = []
    for row, members in enumerate(rows):
        path: list[int] = []
        before: tuple[tuple[int, bool], ...] = ()
        filled = 0
        for member in members:
            key = keys[member]
            path = path[: common_start(before, key)]
            for position in range(len(path), len(key)):
                tokens[row, filled], answering[row, filled] = key[position]
                depth[row, filled], mask[row, filled] = position, True
                if path:
                    visible[row, filled] |= visible[row, path[-1]]
                path.append(filled)
                filled += 1
            before = key
            at.append((row, tuple(path)))
    put = [torch.from_numpy(part).to(device) for part in (tokens, mask, depth, answering, visible)]
    return TreeBatch(np.asarray([i for row in rows for i in row]), tuple(at), *put)
