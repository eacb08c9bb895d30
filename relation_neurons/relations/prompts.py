"""`Prompts` and `make_prompts`: every prompt of a run, from templates to tokens.

An answer is tokenised as the continuation of its prompt, never alone (pitfall 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.errors import AnswerError
from relation_neurons.notebook_html import table_view
from relation_neurons.relations.relation import (
    Fact,
    Relation,
    Side,
    Template,
    relation_label,
    subject_key,
)
from relation_neurons.relations.shipped import load_background
from relation_neurons.relations.split import choose_templates, draw_shots, split_subjects

__all__ = [
    "BACKGROUND",
    "KIND_PHRASES",
    "Prompts",
    "common_start",
    "make_prompts",
    "nonsense_subjects",
    "padding_token",
    "prompts_of",
    "prompts_table",
]

KIND_PHRASES = {"fact": "on facts", "nonsense": "with nonsense subjects", "background": "neutral"}
"""What the kinds of prompts are called in a sentence."""

BACKGROUND = "(background)"
"""The `relation` of a neutral prompt."""

_NEUTRAL_SALT = 0x6E6575
"""Keeps the choice of examples before neutral prompts apart from other draws from the same seed."""

_NONSENSE_SALT = 0x6E6F6E
"""Keeps nonsense subjects apart from other draws from the same seed."""


@dataclass(frozen=True)
class Prompts:
    """Prompts and their tokens, row by row."""

    frame: pd.DataFrame
    """prompt_id, kind (`fact` / `background` / `nonsense`), relation, language, fact (its id, or its
    subject's key), subject, answer, template, form, template_held_out, text, side."""
    tokens: tuple[tuple[int, ...], ...]
    """The tokens of each prompt, including those that the tokenizer adds in front."""
    answers: tuple[tuple[tuple[int, ...], ...], ...]
    """For each prompt, the tokens of each accepted answer; none for background and nonsense."""
    pad_id: int
    context: tuple[int, ...] = ()
    """For each prompt, how many of its first tokens belong to solved examples (few-shot), which are never
    pooled because they are the same in every prompt of a relation. Empty if no prompt has any."""

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        counts = self.frame.groupby(["side", "kind"], sort=True).size()
        parts = ", ".join(f"{n} {side} {kind}" for (side, kind), n in counts.items())
        return f"Prompts({parts})"

    def _repr_html_(self) -> str:
        """Shows the sizes that the split reached, and an example of each relation."""
        frame = self.frame
        several = frame["language"].nunique() > 1
        examples = frame[frame["kind"] == "fact"].drop_duplicates(["relation", "language", "side"])
        said = examples.set_index(["relation", "language", "side"])["text"]
        rows = [
            (
                relation_label(row.relation, row.language, several=several),
                row.side.replace("_", " "),
                row.facts,
                row.templates,
                said[row.relation, row.language, row.side],
            )
            for row in self.split_sizes().itertuples()
        ]
        counts = frame["kind"].value_counts()
        note = ", ".join(
            f"{counts[kind]:,} {KIND_PHRASES.get(kind, kind)}" for kind in counts.index
        )
        head = ("Relation", "Side", "Facts", "Templates", "Such as")
        return table_view(f"{len(self):,} prompts", note, (head, rows))

    def take(self, keep: np.ndarray | pd.Series) -> Prompts:
        """Returns the rows where `keep` (a boolean per row) is true; prompt ids are kept."""
        rows = np.flatnonzero(np.asarray(keep))
        return replace(
            self,
            frame=self.frame.iloc[rows].reset_index(drop=True),
            tokens=tuple(self.tokens[row] for row in rows),
            answers=tuple(self.answers[row] for row in rows),
            context=tuple(self.context[row] for row in rows) if self.context else (),
        )

    @property
    def detection(self) -> Prompts:
        """The prompts that neurons are found on: detection facts, neutral prompts, nonsense subjects."""
        return self.take(self.frame["side"] == "detection")

    @property
    def held_out(self) -> Prompts:
        """The prompts that ablation is judged on."""
        return self.take(self.frame["side"] == "held_out")

    def split_sizes(self) -> pd.DataFrame:
        """Counts facts and templates per relation and side: the sizes that the split reached."""
        facts = self.frame[self.frame["kind"] == "fact"]
        grouped = facts.groupby(["relation", "language", "side"], sort=True)
        return grouped.agg(
            facts=("subject", "nunique"), templates=("template", "nunique")
        ).reset_index()


def make_prompts(
    relations: Sequence[Relation],
    tokenizer: Any,
    *,
    held_out: int | float = 50,
    hold_out_templates: int | None = None,
    single_template: bool = False,
    shots: int = 0,
    nonsense: int = 20,
    background: bool = True,
    seed: int = 0,
) -> Prompts:
    """Makes every prompt of a run and tokenises it.

    Args:
        relations: from `load_relations`.
        tokenizer: a Hugging Face tokenizer; what it adds before a text (BOS or nothing) is kept.
        held_out: facts set aside per relation, a count or a share; see `split_subjects`.
        hold_out_templates: how many templates a relation is judged on but not detected on: first
            those that its data holds out, then the last of the others, of which at least one is
            kept for detection; 0 judges on the detection templates. None: as the data says.
        single_template: uses the first detection template everywhere (the paper's setting); then no
            template is held out, and the results say so.
        shots: how many solved examples precede each prompt, in the prompt's own template: the same
            detection facts for every prompt of a relation, which are never asked themselves. Neutral
            prompts are preceded by the relations' examples too, drawn at random and evenly, so that
            solved examples do not tell relations from neutral prompts.
        nonsense: how many nonsense subjects per relation; none in scripts without spaces, where
            Latin syllables would mark the script and not the relation.
        background: whether neutral prompts are added, in each language that has them.
        seed: of the split, the shots and the nonsense subjects.

    Raises:
        TooFewFactsError: a relation cannot be split, or has too few facts for its shots.
        TemplateError: a relation has no detection template.
        AnswerError: an answer is not a continuation of its prompt.
    """
    if tokenizer is None:
        raise AnswerError(
            "The model has no tokenizer; expected one. Pass it with load_model(model, tokenizer=…)."
        )
    sides = split_subjects(relations, held_out, seed=seed)
    draft = _Draft()
    for relation in relations:
        detect, judge = choose_templates(relation, hold_out_templates, single_template)
        shown = draw_shots(relation, sides, shots, seed=seed)
        asked = [fact for fact in relation.facts if fact not in shown]
        for fact in asked:
            side = sides[subject_key(fact.subject)]
            for template in judge if side == "held_out" else detect:
                draft.add(
                    relation, template, fact, shown, kind="fact", side=side, unseen=judge != detect
                )
        latin = all(template.separator or template.text.isascii() for template in detect)
        for subject in nonsense_subjects(nonsense if latin else 0, seed=seed):
            for template in detect:
                draft.add(relation, template, Fact(subject, ("",)), shown, kind="nonsense")
    if background:
        for language in dict.fromkeys(relation.language for relation in relations):
            draft.add_background(load_background(language), language, seed)
    return draft.tokenised(tokenizer)


class _Draft:
    """Rows that become `Prompts` once they are tokenised."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.accepted: list[tuple[str, ...]] = []
        self.separators: list[str] = []
        self.contexts: list[str] = []

    def add(
        self,
        relation: Relation,
        template: Template,
        fact: Fact,
        shown: Sequence[Fact],
        *,
        kind: str,
        side: Side = "detection",
        unseen: bool = False,
    ) -> None:
        """Adds a prompt for a fact or a nonsense subject in one template."""
        context = "".join(
            f"{template.fill(shot.subject)}{template.separator}{shot.objects[0]}\n"
            for shot in shown
        )
        self._row(
            kind=kind,
            relation=relation.name,
            language=relation.language,
            fact=fact.key,
            subject=fact.subject,
            answer=fact.objects[0],
            template=template.text,
            form=template.form,
            template_held_out=side == "held_out" and unseen,
            text=context + template.fill(fact.subject),
            side=side,
        )
        self.accepted.append(fact.objects if kind == "fact" else ())
        self.separators.append(template.separator)
        self.contexts.append(context)

    def add_background(self, neutral: Sequence[tuple[str, str]], language: str, seed: int) -> None:
        """Adds a language's neutral prompts, preceded by the examples that precede its facts."""
        contexts = {
            context: None
            for row, context in zip(self.rows, self.contexts, strict=True)
            if row["language"] == language and row["side"] == "detection"
        }
        shown = list(contexts) or [""]
        lot = np.random.default_rng([seed, _NEUTRAL_SALT]).permutation(len(neutral))
        for (text, form), place in zip(neutral, lot, strict=True):
            context = shown[place % len(shown)]
            self._row(
                kind="background",
                relation=BACKGROUND,
                language=language,
                fact="",
                subject="",
                answer="",
                template=text,
                form=form,
                template_held_out=False,
                text=context + text,
                side="detection",
            )
            self.accepted.append(())
            self.separators.append(" ")
            self.contexts.append(context)

    def _row(self, **columns: Any) -> None:
        self.rows.append({"prompt_id": len(self.rows), **columns})

    def tokenised(self, tokenizer: Any) -> Prompts:
        """Tokenises the prompts, and the answers as their continuations."""
        frame = pd.DataFrame(self.rows)
        tokens = [tuple(ids) for ids in tokenizer(list(frame["text"]))["input_ids"]]
        answers = [
            tuple(dict.fromkeys(answer_tokens(tokenizer, text, ids, sep, obj) for obj in objects))
            for text, ids, sep, objects in zip(
                frame["text"], tokens, self.separators, self.accepted, strict=True
            )
        ]
        lengths: tuple[int, ...] = ()
        if any(self.contexts):
            before = {text: tokenizer(text)["input_ids"] for text in dict.fromkeys(self.contexts)}
            lengths = tuple(
                common_start(before[context], ids) if context else 0
                for context, ids in zip(self.contexts, tokens, strict=True)
            )
        return Prompts(frame, tuple(tokens), tuple(answers), padding_token(tokenizer), lengths)


def answer_tokens(
    tokenizer: Any, prompt: str, prompt_tokens: Sequence[int], separator: str, answer: str
) -> tuple[int, ...]:
    """Tokenises `answer` as the continuation of its prompt.

    Where the tokenizer merges tokens across the boundary, the continuation is tokenised after an
    anchor letter instead, so that SentencePiece adds no dummy space.

    Raises:
        AnswerError: the answer has no tokens of its own.
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
        f"The answer {answer!r} is not a continuation of {prompt!r} for this tokenizer: it has no "
        "tokens of its own after the prompt. Reword the template or the answer."
    )


def nonsense_subjects(count: int, *, seed: int = 0) -> list[str]:
    """Makes up pronounceable names, the same ones for every relation (method 3)."""
    rng = np.random.default_rng([seed, _NONSENSE_SALT])
    onsets, vowels = list("bdfgklmnprstvz"), list("aeiou")
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = [rng.choice(onsets) + rng.choice(vowels) for _ in range(rng.integers(3, 5))]
        names["".join(syllables).capitalize()] = None
    return list(names)


def common_start(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Returns the length of the common prefix of two sequences.

    >>> common_start([5, 6, 7], [5, 6, 8, 9])
    2
    """
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def padding_token(tokenizer: Any) -> int:
    """Returns the token that fills rows up: the tokenizer's padding token, else its EOS, BOS, or 0.

    Padding is masked everywhere, so no outcome depends on it; it only has to be in the vocabulary.
    """
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id)
    return next((int(token_id) for token_id in known if token_id is not None), 0)


def prompts_table(prompts: Prompts) -> pd.DataFrame:
    """Returns prompts and their tokens as one table."""
    return prompts.frame.assign(
        tokens=[list(t) for t in prompts.tokens],
        answers=[[list(a) for a in answers] for answers in prompts.answers],
        pad_id=prompts.pad_id,
        context=list(prompts.context) or 0,
    )


def prompts_of(table: pd.DataFrame) -> Prompts:
    """Returns the prompts of a table made by `prompts_table`."""
    tokens = tuple(tuple(int(t) for t in row) for row in table["tokens"])
    answers = tuple(tuple(tuple(int(t) for t in a) for a in row) for row in table["answers"])
    context = tuple(int(count) for count in table["context"]) if table["context"].any() else ()
    frame = table.drop(columns=["tokens", "answers", "pad_id", "context"])
    return Prompts(frame, tokens, answers, int(table["pad_id"].iloc[0]), context)
