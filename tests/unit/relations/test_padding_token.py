"""The token that fills rows up is one that the vocabulary has, whatever the tokenizer lacks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from relation_neurons.relations.prompts import padding_token


@pytest.mark.parametrize(
    ("pad", "eos", "bos", "expected"),
    [
        (3, 2, 1, 3),
        (0, 2, 1, 0),
        (None, 2, 1, 2),
        (None, 0, 1, 0),
        (None, None, 1, 1),
        (None, None, None, 0),
    ],
)
def test_the_padding_token_is_the_tokenizers_own_else_its_end_its_begin_or_0(
    pad, eos, bos, expected
):
    tokenizer = SimpleNamespace(pad_token_id=pad, eos_token_id=eos, bos_token_id=bos)
    assert padding_token(tokenizer) == expected
