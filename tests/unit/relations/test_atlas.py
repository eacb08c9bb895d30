"""Every file of the atlas: its form, what the check says, and the split over all of it."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

import pytest

import relation_neurons as rn
from relation_neurons.relations.relation import subject_key
from relation_neurons.relations.shipped import load_background
from relation_neurons.relations.split import find_entities, split_subjects

DATA = Path(rn.__file__).parent / "data"
FILES = sorted((DATA / "atlas").glob("*.json"))
LANGUAGES = ("en", "de", "es", "fr", "zh", "ja")
PAPER = {
    *("company_ceo", "company_hq", "landmark_continent", "landmark_country", "person_father"),
    *("person_mother", "person_occupation", "person_plays_instrument", "person_pro_sport"),
    *("person_sport_position", "product_company", "star_constellation"),
}
COUNTRY = {
    f"country_{what}"
    for what in ("capital", "currency", "language", "continent", "largest_city", "calling_code")
} | {"country_tld", "country_demonym"}
LINGUISTIC = ("word_opposite", "adjective_comparative", "verb_past_tense", "noun_plural")
SMALL_WORLD = {"us_state_capital": 45, "animal_young": 40, "painting_artist": 100}
"""Relations of which the world has fewer than 100 well-known facts, and how many are here."""
COPIED_BY_NATURE = {"element_symbol"}
"""The symbol of an element may be a letter that stands in its name as a word of its own."""


@pytest.fixture(scope="module")
def atlas():
    return rn.load_relations("atlas", languages="all")


def english(atlas):
    return {one.name: one for one in atlas if one.language == "en"}


def test_the_atlas_covers_what_it_promises(atlas):
    names = english(atlas)
    assert len(names) >= 24
    assert {*PAPER, *COUNTRY, *LINGUISTIC} <= set(names)
    assert all(len(names[name].facts) >= 60 for name in PAPER)
    for name, one in names.items():
        assert len(one.facts) >= SMALL_WORLD.get(name, 100), (name, len(one.facts))
    spoken = defaultdict(set)
    for one in atlas:
        spoken[one.name].add(one.language)
    assert sum(languages == set(LANGUAGES) for languages in spoken.values()) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_clean_and_says_where_it_comes_from(path):
    text = path.read_text(encoding="utf-8")
    data = json.loads(text)
    stem, _, language = path.stem.partition(".")
    assert (data["name"], data["language"]) == (stem, language or "en")
    assert data["source"] and data["licence"] and data["description"]
    assert not re.search(r"\\u[0-9a-f]{4}", text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf") for c in text if c != "\n")
    assert unicodedata.normalize("NFC", text) == text
    keys = [subject_key(fact["subject"]) for fact in data["facts"]]
    assert len(keys) == len(set(keys))
    for fact in data["facts"]:
        texts = [fact["subject"], *fact["objects"]]
        assert all(t == " ".join(t.split()) and t for t in texts), fact
        assert len(set(fact["objects"])) == len(fact["objects"]), fact
        assert "{" not in "".join(texts) and set(fact) <= {"id", "subject", "objects", "year"}
        assert all(re.fullmatch(r"\S.*\S|\S", t) and not t.endswith(" .") for t in texts)
    years = [fact.get("year") for fact in data["facts"]]
    assert all(year is None or 1990 <= year <= 2026 for year in years)
    if stem == "company_ceo":
        assert None not in years  # a fact that changes carries its year


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_templates_are_four_in_both_forms_on_both_sides(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    forms = [(t["side"], t["form"]) for t in data["templates"]]
    assert len(forms) >= 3 and {side for side, _ in forms} == {"detection", "held_out"}
    for side in ("detection", "held_out"):
        assert {form for s, form in forms if s == side} == {"statement", "question"}
    for template in data["templates"]:  # nothing after a quotation mark or a plus sign
        joined = data["language"] in ("zh", "ja") or template["text"][-1] in '"+'
        assert template.get("separator", " ") == ("" if joined else " "), template
    answers = {subject_key(o) for fact in data["facts"] for o in fact["objects"] if len(o) > 3}
    for template in data["templates"]:
        text = template["text"]
        assert text.count("{}") == 1 and text == text.strip() and "  " not in text
        assert ("?" in text or "？" in text) == (template["form"] == "question")  # noqa: RUF001
        words = set(re.findall(r"\w+", text.casefold()))
        assert not words & answers, (text, words & answers)
        if text.startswith("{}"):
            lower = [f["subject"] for f in data["facts"] if f["subject"][0].islower()]
            assert not lower or data["language"] != "en", (text, lower[:3])


def test_every_file_passes_the_check(atlas):
    findings = rn.check_relations("atlas", languages="all")
    assert not findings["stops"].any()
    kinds = set(findings["finding"])
    for never in (
        "rows dropped, empty",
        "rows dropped, duplicates",
        "double escapes or invisible characters, mended",
        "no held-out template",
        "templates of one form only",
        "too few facts, the relation will be left out",
    ):
        assert never not in kinds, findings[findings["finding"] == never]
    copied = findings[findings["finding"] == "answers that stand in their subject"]
    assert set(copied["relation"]) <= COPIED_BY_NATURE, copied
    assert len(findings[findings["finding"] == "rows read"]) == len(FILES)


def test_no_answer_is_right_for_more_than_a_third_of_a_relation(atlas):
    for one in atlas:
        answer, share = one.majority()
        assert share <= 0.36, (one.name, one.language, answer, share)


def test_pitfall_16_no_subject_is_on_both_sides_in_any_language_for_100_seeds(atlas):
    entity = find_entities(atlas)
    facts = [(one, fact) for one in atlas for fact in one.facts]
    by_fact = defaultdict(list)
    for one, fact in facts:
        by_fact[one.name, fact.key].append(subject_key(fact.subject))
    for seed in range(100):
        sides = split_subjects(atlas, 50, seed=seed)
        assert len(sides) == len(entity)
        for keys in by_fact.values():  # a fact is on one side in all its languages
            assert len({sides[key] for key in keys}) == 1
    for one in atlas:  # with the last seed: every relation gets both sides
        held = sum(sides[subject_key(fact.subject)] == "held_out" for fact in one.facts)
        assert 10 <= held <= len(one.facts) - 10, (one.name, one.language, held)


def test_entities_of_the_atlas_are_not_chained_together(atlas):
    """Homonyms in several languages could link unlike entities; here none does to speak of."""
    members = defaultdict(set)
    for key, entity in find_entities(atlas).items():
        members[entity].add(key)
    largest = max(members.values(), key=len)
    assert len(largest) <= 14, largest


def test_a_subject_is_spelt_alike_in_every_relation_of_a_language(atlas):
    spelt = defaultdict(set)
    for one in atlas:
        for fact in one.facts:
            name = fact.subject.removeprefix("the ").removeprefix("The ")
            if not name[0].islower():  # a name, not a word
                spelt[one.language, subject_key(name)].add(fact.subject.casefold())
    assert not {key: found for key, found in spelt.items() if len(found) > 1}


def test_neutral_prompts_are_there_in_every_language():
    for language in LANGUAGES:
        prompts = load_background(language)
        assert len(prompts) == 200
        assert sum(form == "question" for _, form in prompts) == 100
        assert len({text for text, _ in prompts}) == 200
        assert all(text == text.strip() and text for text, _ in prompts)
    assert load_background("tlh") == () and load_background("../x") == ()
