"""The seventeen real LRE files, where a checkout of them lies beside the repository."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.relations import lre
from relation_neurons.relations.relation import subject_key

FOLDER = ROOT.parent / "shared" / "lre"


there = pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder shared/lre beside the repository")
ATLAS = {  # where the atlas asks the same as a relation of LRE
    "company_ceo": "company_ceo",
    "company_hq": "company_hq",
    "country_capital": "country_capital_city",
    "country_currency": "country_currency",
    "country_language": "country_language",
    "country_largest_city": "country_largest_city",
    "landmark_continent": "landmark_on_continent",
    "person_father": "person_father",
    "person_mother": "person_mother",
    "person_occupation": "person_occupation",
    "person_plays_instrument": "person_plays_instrument",
    "person_pro_sport": "person_plays_pro_sport",
    "person_sport_position": "person_plays_position_in_sport",
    "product_company": "product_by_company",
    "star_constellation": "star_constellation",
}
LRE_IS_WRONG = {
    ("company_hq", "AstraZeneca"): "moved from London to Cambridge in 2016",
    ("landmark_continent", "Aconcagua"): "says the Americas, of which South America is one",
    ("person_occupation", "Aristotle"): "says mathematician",
    ("person_occupation", "Michelangelo"): "says poet, which he also was",
    ("person_plays_instrument", "Bix Beiderbecke"): "says trumpet; he played the cornet",
    ("person_plays_instrument", "Chris Thile"): "says guitar; he plays the mandolin",
    ("person_plays_instrument", "Eric Clapton"): "says violin",
    ("person_plays_instrument", "Jimmy Page"): "says violin",
    ("person_plays_instrument", "Mark Knopfler"): "says violin",
    ("person_plays_instrument", "Paul McCartney"): "says piano; best known for the bass",
    ("person_plays_instrument", "Toots Thielemans"): "says guitar; best known for the harmonica",
}


@there
def test_all_seventeen_files_are_read_with_their_dirt_counted():
    relations = rn.load_relations(FOLDER)
    assert len(relations) == 17
    totals = {
        key: sum(r.notes[key] for r in relations)
        for key in ("read", "duplicates", "merged", "empty")
    }
    assert (
        totals["read"]
        == sum(len(r.facts) for r in relations) + totals["duplicates"] + totals["merged"]
    )
    assert totals["empty"] == 0
    pairs, objects = Counter(), defaultdict(set)
    for path in FOLDER.glob("*.json"):
        for sample in json.loads(path.read_text(encoding="utf-8"))["samples"]:
            pairs[path.stem, sample["subject"], sample["object"]] += 1
            objects[path.stem, sample["subject"].casefold()].add(sample["object"])
    assert totals["duplicates"] == sum(count - 1 for count in pairs.values()) == 20
    several = sum(len(fact.objects) > 1 for relation in relations for fact in relation.facts)
    assert several == sum(len(found) > 1 for found in objects.values()) == 18
    by_name = {r.name: r for r in relations}
    assert by_name["landmark_on_continent"].majority()[0] == "Antarctica"
    assert by_name["landmark_on_continent"].majority()[1] == pytest.approx(0.74, abs=0.01)
    assert by_name["person_father"].copied() > 0


@there
def test_the_check_counts_the_dirt_of_the_seventeen_files():
    findings = rn.check_relations(FOLDER)
    assert not findings["stops"].any()
    counts = {(row.relation, row.finding): row for row in findings.itertuples()}
    samples = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["samples"]
        for path in FOLDER.glob("*.json")
    }
    where = defaultdict(set)
    for name, rows in samples.items():
        assert counts[name, "rows read"].count == len(rows)
        for row in rows:
            where[subject_key(row["subject"].replace("\\u00ed", "í").replace("\\u00e1", "á"))].add(
                name
            )
    shared = counts[
        "all relations", "subjects of several relations, held out from all of them or from none"
    ]
    assert shared.count == sum(len(names) > 1 for names in where.values()) > 800
    both = {"person_father", "person_mother"}
    assert sum(both <= names for names in where.values()) == 748
    escaped = [
        row for rows in samples.values() for row in rows if "\\u" in row["subject"] + row["object"]
    ]
    mended = findings[findings["finding"] == "double escapes or invisible characters, mended"]
    assert mended["count"].sum() == len(escaped) == 2
    assert "Brasília" in mended["examples"].iloc[0]
    majority = "facts that the commonest answer alone gets right"
    assert "Antarctica (74%)" in counts["landmark_on_continent", majority].examples
    assert "French (64%)" in counts["person_native_language", majority].examples
    whole = counts["person_father", "answers that stand in their subject"].count
    part = counts[
        "person_father", "answers of which the first or last word stands in the subject"
    ].count
    assert (whole + part) / len(samples["person_father"]) == pytest.approx(0.72, abs=0.01)


@there
def test_the_files_are_the_published_ones():
    published = {Path(name).name: digest for name, digest in lre._listed()["sha256"].items()}
    for path in FOLDER.glob("*.json"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == published[path.name]


@there
@pytest.mark.parametrize("name", ATLAS)
def test_the_atlas_and_lre_agree_where_both_speak(name):
    """Two hands wrote them: a fact on which they differ is looked at, and named above."""
    (ours,) = rn.load_relations(f"atlas/{name}")
    (theirs,) = rn.load_relations(FOLDER / f"{ATLAS[name]}.json")
    known = {subject_key(f.subject).removeprefix("the "): f for f in ours.facts}

    def same(one, other):
        one, other = (subject_key(text).removeprefix("the ") for text in (one, other))
        return one in other or other in one

    both, differ = 0, set()
    for fact in theirs.facts:
        mine = known.get(subject_key(fact.subject).removeprefix("the "))
        if mine is not None:
            both += 1
            if not any(same(a, b) for a in fact.objects for b in mine.objects):
                differ.add((name, mine.subject))
    assert both > 0
    if name == "company_ceo":  # who leads a company changes: LRE is of 2019 to 2022
        assert len(differ) <= both / 3
        return
    assert differ <= set(LRE_IS_WRONG), differ - set(LRE_IS_WRONG)
