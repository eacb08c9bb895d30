"""`Fact`, `Template` and `Relation`: facts and the templates that ask for them.

A fact is (subject, relation, object); a relation has facts and prompt templates with exactly one
`{}`. Templates, like facts, have a side: neurons are found on *detection* templates and judged on
*held-out* ones (method 1 and 2).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from relation_neurons.errors import RelationFormatError, TemplateError
from relation_neurons.notebook_html import ROWS, table_view

__all__ = [
    "ALL_RELATIONS",
    "MIN_KNOWN",
    "Fact",
    "Relation",
    "Side",
    "Template",
    "relation_label",
    "subject_key",
]

Side = Literal["detection", "held_out"]

MIN_KNOWN = 10
"""Known facts that a relation needs on each side; with 3 positives an AP of 1 is easy to reach by chance."""

ALL_RELATIONS = "all relations"
"""The name under which a summary pools all relations."""

RESERVED = ("(background)", ALL_RELATIONS)
"""Names with another meaning in prompts and summaries, so no relation can have them."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A subject and the objects that are accepted as its answer."""

    subject: str
    """What fills the template's `{}`."""
    objects: tuple[str, ...]
    """Accepted answers; the first is the one shown, the others are aliases or further objects."""
    id: str = ""
    """Identifies the fact in all its languages; if empty, the subject's key is used."""
    year: int | None = None
    """The year in which the fact held, for facts that change."""

    def __post_init__(self) -> None:
        objects = self.objects
        if isinstance(objects, str) or not objects or not all(isinstance(o, str) for o in objects):
            raise RelationFormatError(
                f"The objects of {self.subject!r} are {objects!r}; expected a tuple of texts, such as "
                "('Paris',)."
            )
        if not isinstance(self.subject, str) or not isinstance(self.id, str):
            raise RelationFormatError(
                f"Found the subject {self.subject!r} with the id {self.id!r}; expected texts."
            )
        try:
            "".join((self.subject, self.id, *objects)).encode()
        except UnicodeEncodeError as error:
            raise RelationFormatError(
                f"The fact about {self.subject!r} contains half a character (a lone surrogate); expected "
                "valid Unicode."
            ) from error

    @property
    def key(self) -> str:
        """The id, or the subject's key."""
        return self.id or subject_key(self.subject)

    @property
    def copied(self) -> bool:
        """Whether an accepted answer already occurs in the subject, as whole words (pitfall 8)."""
        return any(_stands_in(answer, self.subject) for answer in self.objects)

    @property
    def copied_in_part(self) -> bool:
        """Whether an answer's first or last word occurs in the subject, as surnames do."""
        ends = ((words[0], words[-1]) for o in self.objects if (words := o.split()))
        return any(_stands_in(word, self.subject) for pair in ends for word in pair)


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with exactly one `{}` for the subject; the answer follows after `separator`."""

    text: str
    """For example `The capital of {} is`."""
    form: str = "statement"
    """`statement` or `question`; recorded so that the effects of form and relation can be told apart."""
    side: Side = "detection"
    """Whether neurons are found on it (`detection`) or judged on it (`held_out`)."""
    separator: str = " "
    """The text between prompt and answer (empty in Chinese and Japanese)."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.separator, str):
            raise TemplateError(
                f"Found the template {self.text!r} with the separator {self.separator!r}; expected texts."
            )
        if not (self.text + self.separator).isprintable():
            raise TemplateError(
                f"Template {self.text!r} contains half a character, a line break or another character that "
                "cannot be printed; expected plain text."
            )
        if self.side not in ("detection", "held_out"):
            raise TemplateError(
                f"Template {self.text!r} has the side {self.side!r}; expected detection or held_out."
            )
        if self.form not in ("statement", "question"):
            raise TemplateError(
                f"Template {self.text!r} has the form {self.form!r}; expected statement or question."
            )
        holes = self.text.count("{}")
        if holes != 1:
            raise TemplateError(
                f"Template {self.text!r} has {holes} '{{}}'; expected exactly one, for the subject."
            )
        if self.text != self.text.rstrip():
            raise TemplateError(
                f"Template {self.text!r} ends in white space, which would become a token of its "
                "own before the answer. Remove it; the separator is added together with the answer."
            )

    def fill(self, subject: str) -> str:
        """Returns the prompt for `subject`; braces in the subject are kept as text."""
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
    """Counts from reading the source: rows `read`, `duplicates` dropped, subjects `merged`."""

    def __post_init__(self) -> None:
        if not self.facts:
            raise RelationFormatError(
                f"Relation {self.name!r} has no facts; expected at least one."
            )
        if not self.name.strip() or self.name in RESERVED or not self.name.isprintable():
            raise RelationFormatError(
                f"A relation cannot be named {self.name!r}; expected a printable name that is not reserved."
            )
        if not self.templates:
            raise TemplateError(f"Relation {self.name!r} has no template; expected at least one.")
        texts = [template.text for template in self.templates]
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise TemplateError(
                f"Relation {self.name!r} has the template {twice!r} twice; expected each once, on one "
                "side: neurons cannot be judged on the template they are found on."
            )

    def __repr__(self) -> str:
        return (
            f"Relation({self.name!r}, {self.language}, {len(self.facts)} facts, "
            f"{len(self.templates)} templates)"
        )

    def _repr_html_(self) -> str:
        """Shows the relation's templates and first facts."""
        majority, share = self.majority()
        note = (
            f"{len(self.facts)} facts in {self.language}; the commonest answer, {majority}, would "
            f"be right for {share:.0%}. {self.description}"
        )
        asked = [(t.text, t.form, t.side.replace("_", " ")) for t in self.templates]
        facts = [
            (fact.subject, fact.objects[0], ", ".join(fact.objects[1:])) for fact in self.facts
        ]
        return table_view(
            self.name,
            note,
            (("Template", "Form", "Side"), asked),
            (("Subject", "Answer", "Also accepted"), facts),
            shown=ROWS // 2,
        )

    def templates_of(self, side: Side) -> tuple[Template, ...]:
        """Returns the templates of one side."""
        return tuple(t for t in self.templates if t.side == side)

    def with_templates(self, templates: Sequence[Template]) -> Relation:
        """Returns the same relation with other templates."""
        return replace(self, templates=tuple(templates))

    def majority(self) -> tuple[str, float]:
        """Returns the commonest object and the share of facts that it answers (pitfall 7).

        Among equally common objects, it is the one that most facts name first.
        """
        counts = Counter(answer for fact in self.facts for answer in set(fact.objects))
        first = Counter(fact.objects[0] for fact in self.facts)
        top = min(counts, key=lambda answer: (-counts[answer], -first[answer], answer))
        return top, counts[top] / len(self.facts)

    def copied(self) -> int:
        """Counts the facts whose answer already occurs in the subject (pitfall 8)."""
        return sum(fact.copied for fact in self.facts)


def subject_key(subject: str) -> str:
    """Returns a subject's key in the split, which ignores case, width and the encoding of accents."""
    return " ".join(unicodedata.normalize("NFKC", subject).casefold().split())


def relation_label(relation: str, language: str, *, several: bool) -> str:
    """Returns a relation's name for tables and figures, with its language where there are several.

    >>> relation_label("country_capital", "de", several=True)
    'country_capital (de)'
    """
    return f"{relation} ({language})" if several else relation


def _stands_in(answer: str, subject: str) -> bool:
    """Whether the answer occurs in the subject: as whole words, or anywhere in scripts without spaces."""
    found, where = (unicodedata.normalize("NFKC", text).casefold() for text in (answer, subject))
    if re.search(r"[\u3040-\u30ff\u3400-\u9fff]", found):
        return found in where
    return re.search(rf"(?<!\w){re.escape(found)}(?!\w)", where) is not None
