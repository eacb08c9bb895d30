"""Prompts: templates to tokens, and length-sorted, left-padded batches with their mask.

An answer is tokenised as the continuation of its prompt, never alone (pitfall 5). The mask always
travels with the tokens: nothing downstream infers it from the padding token (pitfall 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from relation_neurons.errors import AnswerError, TooFewFactsError
from relation_neurons.readers import load_background
from relation_neurons.relations import (
    Relation,
    Side,
    Template,
    split_subjects,
    subject_key,
)

__all__ = ["BACKGROUND", "Batch", "Prompts", "make_batches", "make_prompts", "nonsense_subjects"]

BACKGROUND = "(background)"
"""The `relation` of a neutral prompt."""


@dataclass(frozen=True)
class Prompts:
    """Prompts and their tokens, row by row."""

    frame: pd.DataFrame
    """prompt_id, kind (`fact` / `background` / `nonsense`), relation, language, subject, answer,
    template, form, template_held_out, text, side."""
    tokens: tuple[tuple[int, ...], ...]
    """The tokens of each prompt, with whatever the tokenizer puts before them."""
    answers: tuple[tuple[tuple[int, ...], ...], ...]
    """For each prompt, the tokens of each accepted answer; none for background and nonsense."""
    pad_id: int

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        counts = self.frame.groupby(["side", "kind"], sort=True).size()
        parts = ", ".join(f"{n} {side} {kind}" for (side, kind), n in counts.items())
        return f"Prompts({parts})"

    def take(self, keep: np.ndarray | pd.Series) -> Prompts:
        """Gives the rows where `keep` (a boolean per row) holds; prompt ids stay."""
        rows = np.flatnonzero(np.asarray(keep))
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            tokens=tuple(self.tokens[row] for row in rows),
            answers=tuple(self.answers[row] for row in rows),
        )

    @property
    def detection(self) -> Prompts:
        """What neurons are found on: detection facts, neutral prompts, nonsense subjects."""
        return self.take(self.frame["side"] == "detection")

    @property
    def held_out(self) -> Prompts:
        """What ablation is judged on."""
        return self.take(self.frame["side"] == "held_out")

    def split_sizes(self) -> pd.DataFrame:
        """Counts facts and templates a side, per relation: the sizes that the split reached."""
        facts = self.frame[self.frame["kind"] == "fact"]
        grouped = facts.groupby(["relation", "language", "side"], sort=True)
        return grouped.agg(
            facts=("subject", "nunique"), templates=("template", "nunique")
        ).reset_index()


@dataclass(frozen=True)
class Batch:
    """Left-padded sequences of like length."""

    rows: Int[np.ndarray, " batch"]
    """Where each sequence stands in the list that was batched."""
    tokens: Int[Tensor, "batch pos"]
    mask: Bool[Tensor, "batch pos"]
    """True where a token is real."""

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens per row."""
        return self.mask.sum(dim=1)


def make_prompts(
    relations: Sequence[Relation],
    tokenizer: Any,
    *,
    held_out: int | float = 50,
    held_out_templates: int | None = None,
    single_template: bool = False,
    nonsense: int = 20,
    background: bool = True,
    seed: int = 0,
) -> Prompts:
    """Makes every prompt of a run and tokenises it.

    Args:
        relations: what `load_relations` gives.
        tokenizer: a Hugging Face tokenizer; what it puts before a text (BOS or nothing) stays.
        held_out: facts set aside per relation, a count or a share; see `split_subjects`.
        held_out_templates: how many held-out templates a relation is judged on; None for all.
        single_template: asks everything with the first detection template (the paper's setting);
            then no template is held out, and the results say so.
        nonsense: nonsense subjects per relation.
        background: whether the neutral prompts are added.
        seed: of the split and of the nonsense subjects.

    Raises:
        TooFewFactsError: a relation that cannot be split, or without a detection template.
        AnswerError: an answer that is no continuation of its prompt.
    """
    if tokenizer is None:
        raise AnswerError(
            "The model has no tokenizer; give one with load_model(model, tokenizer=…)."
        )
    if held_out_templates is not None and held_out_templates < 1:
        raise TooFewFactsError(f"held_out_templates is {held_out_templates}; expected 1 or more.")
    sides = split_subjects(relations, held_out, seed=seed)
    rows: list[dict[str, Any]] = []
    accepted: list[tuple[str, ...]] = []
    separators: list[str] = []

    def add(
        relation: str,
        language: str,
        subject: str,
        template: Template,
        *,
        kind: str,
        side: Side,
        objects: tuple[str, ...] = (),
        template_held_out: bool = False,
    ) -> None:
        rows.append(
            {
                "prompt_id": len(rows),
                "kind": kind,
                "relation": relation,
                "language": language,
                "subject": subject,
                "answer": objects[0] if objects else "",
                "template": template.text,
                "form": template.form,
                "template_held_out": template_held_out,
                "text": template.fill(subject) if kind != "background" else template.text[:-2],
                "side": side,
            }
        )
        accepted.append(objects)
        separators.append(template.separator)

    for relation in relations:
        detect, judge = _templates(relation, held_out_templates, single_template)
        unseen = judge != detect
        for fact in relation.facts:
            side = sides[subject_key(fact.subject)]
            for template in judge if side == "held_out" else detect:
                add(
                    relation.name,
                    relation.language,
                    fact.subject,
                    template,
                    kind="fact",
                    side=side,
                    objects=fact.objects,
                    template_held_out=side == "held_out" and unseen,
                )
        for subject in nonsense_subjects(nonsense, seed=seed):
            for template in detect:
                add(
                    relation.name,
                    relation.language,
                    subject,
                    template,
                    kind="nonsense",
                    side="detection",
                )
    if background:
        for text, form in load_background():
            add(
                BACKGROUND,
                "en",
                "",
                Template(text + "{}", form),
                kind="background",
                side="detection",
            )

    frame = pd.DataFrame(rows)
    tokens = [tuple(ids) for ids in tokenizer(list(frame["text"]))["input_ids"]]
    answers = [
        tuple(dict.fromkeys(answer_tokens(tokenizer, text, ids, sep, obj) for obj in objects))
        for text, ids, sep, objects in zip(frame["text"], tokens, separators, accepted, strict=True)
    ]
    return Prompts(frame, tuple(tokens), tuple(answers), _pad_id(tokenizer))


def answer_tokens(
    tokenizer: Any, prompt: str, prompt_tokens: Sequence[int], separator: str, answer: str
) -> tuple[int, ...]:
    """Tokenises `answer` as the continuation of its prompt.

    Where the tokenizer merges across the seam, the continuation is tokenised behind an anchor
    letter instead, so that no SentencePiece dummy space comes in.

    Raises:
        AnswerError: no tokens are left.
    """
    whole = tokenizer(prompt + separator + answer)["input_ids"]
    start = len(prompt_tokens)
    if list(whole[:start]) == list(prompt_tokens) and len(whole) > start:
        return tuple(whole[start:])
    anchor = tokenizer("x", add_special_tokens=False)["input_ids"]
    behind = tokenizer("x" + separator + answer, add_special_tokens=False)["input_ids"]
    if behind[: len(anchor)] == anchor and len(behind) > len(anchor):
        return tuple(behind[len(anchor) :])
    raise AnswerError(
        f"The answer {answer!r} is no continuation of {prompt!r} for this tokenizer: it gives no "
        "tokens of its own after the prompt. Reword the template or the answer."
    )


def nonsense_subjects(count: int, *, seed: int = 0) -> list[str]:
    """Makes pronounceable names that no one has, the same for every relation (method 3)."""
    rng = np.random.default_rng([seed, 0x6E6F6E])
    onsets, vowels = list("bdfgklmnprstvz"), list("aeiou")
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = [rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.integers(3, 5))]
        names["".join(syllables).capitalize()] = None
    return list(names)


def make_batches(
    sequences: Sequence[Sequence[int]], *, batch_size: int, pad_id: int, device: Any = "cpu"
) -> Iterator[Batch]:
    """Yields left-padded batches, longest first (an out-of-memory shows at once).

    Rows of equal length keep their order, so the plan is the same every time.
    """
    order = sorted(range(len(sequences)), key=lambda row: -len(sequences[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        width = len(sequences[rows[0]])
        tokens = np.full((len(rows), width), pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=bool)
        for i, row in enumerate(rows):
            tokens[i, width - len(sequences[row]) :] = sequences[row]
            mask[i, width - len(sequences[row]) :] = True
        yield Batch(
            np.asarray(rows), torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)
        )


def _templates(
    relation: Relation, held_out_templates: int | None, single_template: bool
) -> tuple[tuple[Template, ...], tuple[Template, ...]]:
    detect = relation.templates_of("detection")
    if not detect:
        raise TooFewFactsError(f"Relation {relation.name!r} has no detection template.")
    if single_template:
        return detect[:1], detect[:1]
    judge = relation.templates_of("held_out")[:held_out_templates]
    return detect, judge or detect


def _pad_id(tokenizer: Any) -> int:
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token_id is not None:
            return int(token_id)
    return 0
