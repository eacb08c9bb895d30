"""The planted model's relations: made-up facts about real countries, in five wordings each.

Every relation has a noun of its own in every template, and some have adjectives before it, so that
the lengths of prompts differ between relations, as they do in real data. The subjects are those of
the neutral prompts, so that the entity tells no relation from them.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from relation_neurons.relations.relation import Fact, Relation, Template
from relation_neurons.relations.shipped import load_background

__all__ = ["NOUNS", "SUBJECTS", "make_facts", "make_relations", "noun", "split_words", "vocabulary"]

# fmt: off
SUBJECTS = (
    "France", "Brazil", "Japan", "Kenya", "Canada", "Egypt", "Poland", "India", "Peru", "Sweden",
    "Turkey", "Vietnam", "Mexico", "Nigeria", "Italy", "China", "Cuba", "Greece", "Morocco",
    "Germany", "Chile", "Iran", "Norway", "Thailand", "Ghana", "Spain", "Indonesia", "Argentina",
    "Ukraine", "Australia", "Ethiopia", "Portugal", "Pakistan", "Colombia", "Hungary", "Russia",
    "Nepal", "Tanzania", "Austria", "Iraq", "Finland", "Bangladesh", "Bolivia", "Jordan",
    "Denmark", "Senegal", "Ireland", "Mongolia", "Switzerland", "Uganda", "Romania", "Cambodia",
    "Venezuela", "Belgium", "Lebanon", "Cameroon", "Bulgaria", "Ecuador", "Iceland", "Malaysia",
)
# fmt: on
NOUNS: dict[str, tuple[str, ...]] = {
    "capital": ("capital", "seat", "metropolis", "residency", "headquarters"),
    "language": ("language", "tongue", "speech", "idiom", "dialect"),
    "currency": ("currency", "coin", "money", "tender", "cash"),
    "meal": ("meal", "recipe", "cuisine", "delicacy", "platter"),
    "flower": ("flower", "blossom", "bloom", "herb", "plant"),
    "sport": ("sport", "pastime", "contest", "match", "athletics"),
    "anthem": ("anthem", "hymn", "tune", "chant", "melody"),
    "metal": ("metal", "ore", "mineral", "ingot", "alloy"),
}
"""Each relation's noun in each of the five frames, a word that no neutral prompt has."""
_FRAMES = (
    ("The {} of {{}} is", "statement", "detection"),
    ("What is the {} of {{}} ? It is", "question", "detection"),
    ("In {{}} the {} is", "statement", "detection"),
    ("We know that {{}} has as its {} the", "statement", "held_out"),
    ("Which {} has the country {{}} ? The answer is", "question", "held_out"),
)
_ADJECTIVES = (
    ("truly", "famous", "national"),
    ("really", "common", "modern"),
    ("quite", "proud", "local"),
    ("very", "special", "beloved"),
    ("rather", "typical", "ancient"),
)
"""The last 0 to 3 of them stand before a relation's noun, in each frame its own."""
_STEMS = ("Bal", "Cor", "Dun", "Fen", "Gar", "Hel", "Jor", "Kel")
_ENDINGS = ("ton", "ish", "ar", "oti", "rose", "ball", "song", "ite")
_FACT_SALT = 0x66616374
"""Keeps answers and kinds of facts apart from other draws from the same seed."""


def noun(relation: str, frame: int) -> str:
    """Returns the relation's own word in one frame."""
    return NOUNS[relation][frame]


def make_facts(
    relations: int, subjects: int, *, carried: float, unknown: float, seed: int
) -> pd.DataFrame:
    """Draws every relation's answers and what each fact is.

    Returns:
        A row per fact: relation, subject, answer, kind (`carried`, `direct`, `unknown`, `hindered`)
        and other (of a hindered fact the relation whose neurons hinder it).
    """
    names = list(NOUNS)[:relations]
    rng = np.random.default_rng([seed, _FACT_SALT])
    rows = []
    for number, name in enumerate(names):
        answers = rng.permutation(np.arange(subjects) % len(_STEMS))
        order = rng.permutation(subjects)
        kinds = np.full(subjects, "direct", dtype=object)
        wrong = round(unknown * subjects)
        hindered = (subjects - wrong) // 4 if number == relations - 1 else 0
        left = order[wrong + hindered :]
        kinds[order[:wrong]] = "unknown"
        kinds[order[wrong : wrong + hindered]] = "hindered"
        kinds[left[: round(carried * len(left))]] = "carried"
        for i in range(subjects):
            rows.append(
                {
                    "relation": name,
                    "subject": SUBJECTS[i],
                    "answer": _STEMS[answers[i]] + _ENDINGS[number],
                    "kind": kinds[i],
                    "other": names[0] if kinds[i] == "hindered" else "",
                }
            )
    return pd.DataFrame(rows)


def make_relations(facts: pd.DataFrame, templates: int) -> tuple[Relation, ...]:
    """Words the facts in the first `templates` detection frames and both held-out ones."""
    frames = [*range(templates), 3, 4]
    made = []
    for number, (name, rows) in enumerate(facts.groupby("relation", sort=False)):
        wordings = tuple(_word(str(name), number % 4, frame) for frame in frames)
        pairs = zip(rows["subject"], rows["answer"], strict=True)
        made.append(
            Relation(
                str(name),
                tuple(Fact(subject, (answer,)) for subject, answer in pairs),
                wordings,
                description=f"the {name} of a country, made up",
                source="planted_model",
            )
        )
    return tuple(made)


def _word(relation: str, adjectives: int, frame: int) -> Template:
    """Words a relation in one frame."""
    text, form, side = _FRAMES[frame]
    before = _ADJECTIVES[frame]
    phrase = [*before[len(before) - adjectives :], noun(relation, frame)]
    return Template(
        text.format(" ".join(phrase)), form, "held_out" if side == "held_out" else "detection"
    )


def split_words(text: str) -> list[str]:
    """Splits a text as the planted model's tokenizer does.

    >>> split_words("The weather in Brazil?")
    ['The', 'weather', 'in', 'Brazil', '?']
    """
    return re.findall(r"\w+|[^\w\s]+", text)


def vocabulary(facts: pd.DataFrame) -> list[str]:
    """Lists every word of the relations and of the neutral prompts."""
    texts = [text for text, _ in load_background("en")]
    texts += [
        template.text for relation in make_relations(facts, 3) for template in relation.templates
    ]
    words = dict.fromkeys(word for text in texts for word in split_words(text))
    words.pop("{}", None)
    return [*words, *sorted(set(facts["subject"]) - set(words)), *sorted(set(facts["answer"]))]
