"""Relations: facts and templates, and the entity-disjoint split.

A fact is (subject, relation, object); a relation has facts and prompt templates with exactly one
`{}`. Templates, like facts, have a side: neurons are found on *detection* templates and judged on
*held-out* ones (method 1 and 2).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from relation_neurons.errors import (
    RelationFormatError,
    TemplateError,
    TooFewFactsError,
)

__all__ = [
    "Fact",
    "Relation",
    "Side",
    "Template",
    "split_subjects",
    "subject_key",
]

Side = Literal["detection", "held_out"]
RESERVED = ("(background)", "all relations")
"""Names that stand for something else in prompts and summaries."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A subject and the objects that are accepted as its answer."""

    subject: str
    """What fills the template's `{}`."""
    objects: tuple[str, ...]
    """Accepted answers; the first is the one shown, the others are aliases or further objects."""

    def __post_init__(self) -> None:
        objects = self.objects
        if isinstance(objects, str) or not objects or not all(isinstance(o, str) for o in objects):
            raise RelationFormatError(
                f"The objects of {self.subject!r} are {objects!r}; expected a tuple of texts, such as "
                "('Paris',)."
            )
        if not isinstance(self.subject, str):
            raise RelationFormatError(f"A subject is {self.subject!r}; expected a text.")
        try:
            "".join((self.subject, *objects)).encode()
        except UnicodeEncodeError as error:
            raise RelationFormatError(
                f"The fact about {self.subject!r} holds half a character; expected valid Unicode."
            ) from error


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with exactly one `{}` for the subject; the answer follows after `separator`."""

    text: str
    """For example `The capital of {} is`."""
    form: str = "statement"
    """`statement` or `question`; recorded, so that form and relation can be told apart."""
    side: Side = "detection"
    """Whether neurons are found or judged on it."""
    separator: str = " "
    """What stands between prompt and answer (nothing in Chinese and Japanese)."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.separator, str):
            raise TemplateError(
                f"A template is {self.text!r} with the separator {self.separator!r}; expected texts."
            )
        if self.side not in ("detection", "held_out"):
            raise TemplateError(
                f"Template {self.text!r} has the side {self.side!r}; expected detection or held_out."
            )
        holes = self.text.count("{}")
        if holes != 1:
            raise TemplateError(
                f"Template {self.text!r} has {holes} '{{}}'; expected exactly one, for the subject."
            )
        if self.text != self.text.rstrip():
            raise TemplateError(
                f"Template {self.text!r} ends in white space, which would become a token of its "
                "own before the answer. Remove it: the separator is added with the answer."
            )

    def fill(self, subject: str) -> str:
        """Gives the prompt for `subject`; braces inside the subject stay text."""
        return self.text.replace("{}", subject)


@dataclass(frozen=True, slots=True)
class Relation:
    """A named set of facts with the templates that ask for them."""

    name: str
    facts: tuple[Fact, ...]
    templates: tuple[Template, ...]
    language: str = "en"
    description: str = ""
    source: str = ""
    notes: Mapping[str, int] = field(default_factory=dict, compare=False)
    """What reading did: rows `read`, `duplicates` dropped, subjects `merged`."""

    def __post_init__(self) -> None:
        if not self.facts:
            raise RelationFormatError(
                f"Relation {self.name!r} has no facts; expected at least one."
            )
        if not self.name.strip() or self.name in RESERVED:
            raise RelationFormatError(
                f"A relation cannot be named {self.name!r}; expected a name of its own."
            )
        if not self.templates:
            raise TemplateError(f"Relation {self.name!r} has no template; expected at least one.")

    def __repr__(self) -> str:
        return (
            f"Relation({self.name!r}, {self.language}, {len(self.facts)} facts, "
            f"{len(self.templates)} templates)"
        )

    def templates_of(self, side: Side) -> tuple[Template, ...]:
        """Gives the templates of one side."""
        return tuple(t for t in self.templates if t.side == side)

    def with_templates(self, templates: Sequence[Template]) -> Relation:
        """Gives the same relation asked with other templates."""
        return replace(self, templates=tuple(templates))

    def majority(self) -> tuple[str, float]:
        """Gives the commonest object and the share of facts that it answers (pitfall 7)."""
        counts = pd.Series([obj for fact in self.facts for obj in set(fact.objects)]).value_counts()
        top = sorted(counts[counts == counts.max()].index)[0]
        return top, float(counts.max() / len(self.facts))

    def copied(self) -> int:
        """Counts facts whose answer already stands in the subject (pitfall 8)."""
        return sum(any(o.lower() in f.subject.lower() for o in f.objects) for f in self.facts)


def subject_key(subject: str) -> str:
    """The identity of a subject in the split: case, width and accents' encoding do not matter."""
    return " ".join(unicodedata.normalize("NFKC", subject).casefold().split())


def split_subjects(
    relations: Sequence[Relation], held_out: int | float = 50, *, seed: int = 0
) -> dict[str, Side]:
    """Decides the side of every subject, once for all relations and languages (pitfall 16).

    Subjects are taken in a seeded order; one is held out while at least half of the relations it
    occurs in still want held-out subjects. A relation wants `held_out` of them (a count, or a
    share below 1), and at most half of its own.

    Returns:
        The side of each `subject_key`.

    Raises:
        TooFewFactsError: a relation with fewer than two subjects, or a senseless `held_out`.
    """
    if not 0 < held_out < float("inf") or (held_out > 1 and held_out != int(held_out)):
        raise TooFewFactsError(f"held_out is {held_out}; expected a count or a share below 1.")
    where: dict[str, list[int]] = {}
    wanted: list[float] = []
    for number, relation in enumerate(relations):
        subjects = {subject_key(fact.subject) for fact in relation.facts}
        if len(subjects) < 2:
            raise TooFewFactsError(
                f"Relation {relation.name!r} has {len(subjects)} subject; a split needs two at "
                "the least, and some 30 to mean anything. Add facts, or leave it out."
            )
        count = round(held_out * len(subjects)) if held_out < 1 else int(held_out)
        wanted.append(max(1, min(count, len(subjects) // 2)))
        for subject in subjects:
            where.setdefault(subject, []).append(number)
    order = np.random.default_rng(seed).permutation(len(where))
    subjects_sorted = sorted(where)
    sides: dict[str, Side] = {}
    for position in order:
        subject = subjects_sorted[position]
        open_ = sum(wanted[number] > 0 for number in where[subject])
        if 2 * open_ >= len(where[subject]) and open_ > 0:
            sides[subject] = "held_out"
            for number in where[subject]:
                wanted[number] -= 1
        else:
            sides[subject] = "detection"
    return sides
