"""The seventeen real LRE files, where a checkout of them lies beside the repository."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import relation_neurons as rn

FOLDER = Path(__file__).parents[3] / "shared" / "lre"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="no folder shared/lre beside the repository")
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
