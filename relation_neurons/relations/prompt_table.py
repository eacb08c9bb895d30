"""Prompts as one table, with their tokens as lists, and back."""

from __future__ import annotations

import pandas as pd

from relation_neurons.relations.prompts import Prompts

__all__ = ["prompts_of", "prompts_table"]


def prompts_table(prompts: Prompts) -> pd.DataFrame:
    """Puts prompts and their tokens into one table."""
    return prompts.frame.assign(
        tokens=[list(t) for t in prompts.tokens],
        answers=[[list(a) for a in answers] for answers in prompts.answers],
        pad_id=prompts.pad_id,
        context=list(prompts.context) or 0,
    )


def prompts_of(table: pd.DataFrame) -> Prompts:
    """Gives the prompts of a table that `prompts_table` made."""
    tokens = tuple(tuple(int(t) for t in row) for row in table["tokens"])
    answers = tuple(tuple(tuple(int(t) for t in a) for a in row) for row in table["answers"])
    context = tuple(int(count) for count in table["context"]) if table["context"].any() else ()
    frame = table.drop(columns=["tokens", "answers", "pad_id", "context"])
    return Prompts(frame, tokens, answers, int(table["pad_id"].iloc[0]), context)
