"""Prefix trees: every token of every sequence once, each seeing exactly what it follows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relation_neurons.inference.batches import make_batches
from relation_neurons.inference.prefix_trees import TOKENS_PER_PROMPT, make_tree_batches

SEQUENCES = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=9), min_size=1, max_size=30)


@settings(deadline=None)
@given(SEQUENCES, st.integers(1, 4), st.data())
def test_each_sequence_is_read_off_the_trees_token_by_token(sequences, batch_size, data):
    starts = [data.draw(st.integers(0, len(s) - 1)) for s in sequences]
    batches = make_tree_batches(sequences, starts, batch_size=batch_size, pad_id=0)
    seen = []
    for batch in batches:
        flat, mask = batch.padded_paths()
        for i, member in enumerate(batch.rows):
            row, columns = batch.at[i]
            own = batch.tokens[row, list(columns)].tolist()
            assert own == list(sequences[member])
            assert batch.depth[row, list(columns)].tolist() == list(range(len(own)))
            answering = [at >= starts[member] for at in range(len(own))]
            assert batch.answering[row, list(columns)].tolist() == answering
            assert batch.mask[row, list(columns)].all()
            for at, column in enumerate(columns):
                visible = batch.visible[row, column].nonzero()[:, 0].tolist()
                assert sorted(visible) == sorted(columns[: at + 1])
            assert flat[i][mask[i]].tolist() == [row * batch.tokens.shape[1] + c for c in columns]
            assert batch.paths()[i] == flat[i][mask[i]].tolist()
            seen.append(int(member))
        used = {(row, column) for row, columns in batch.at for column in columns}
        assert len(used) == int(batch.mask.sum())
        assert (batch.tokens[~batch.mask] == 0).all()
        assert batch.visible.diagonal(dim1=1, dim2=2).all()  # a pad without any would be NaN
    assert sorted(seen) == list(range(len(sequences)))


@given(SEQUENCES, st.integers(1, 4))
def test_each_sequence_is_read_off_padded_rows_at_its_path(sequences, batch_size):
    for batch in make_batches(sequences, batch_size=batch_size, pad_id=0):
        flat = batch.tokens.flatten().tolist()
        for member, path in zip(batch.rows, batch.paths(), strict=True):
            assert [flat[at] for at in path] == sequences[member]


def test_what_sequences_begin_with_stands_once():
    shared = list(range(100, 180))
    sequences = [[*shared, n, n + 1] for n in range(20)]
    batches = make_tree_batches(sequences, [80] * 20, batch_size=64, pad_id=0)
    assert sum(int(batch.mask.sum()) for batch in batches) == 80 + 2 * 20
    twice = make_tree_batches([*sequences, *sequences], [80] * 40, batch_size=64, pad_id=0)
    assert sum(int(batch.mask.sum()) for batch in twice) == 80 + 2 * 20


def test_a_prompt_and_another_ones_answer_share_nothing_behind_its_end():
    """The same tokens, but `last` ablates one and not the other."""
    (batch,) = make_tree_batches([[5, 6, 7], [5, 6, 7]], [1, 2], batch_size=4, pad_id=0)
    assert int(batch.mask.sum()) == 1 + 2 + 2


@pytest.mark.parametrize("batch_size", [1, 8, 64])
def test_batches_are_filled_by_tokens_and_rows_are_nearly_full(batch_size):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(1, 50, rng.integers(5, 20)).tolist() for _ in range(200)]
    batches = make_tree_batches(sequences, batch_size=batch_size, pad_id=0)
    longest = max(map(len, sequences))
    for batch in batches:
        one_row = batch.tokens.shape[0] == 1
        assert one_row or batch.tokens.numel() <= TOKENS_PER_PROMPT * batch_size
        assert batch.tokens.shape[1] >= min(longest, int(batch.mask.sum()))
    if batch_size == 64:
        real = sum(int(batch.mask.sum()) for batch in batches)
        assert real / sum(batch.tokens.numel() for batch in batches) > 0.9
