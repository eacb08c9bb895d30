"""Relations, readers, and the split by subject."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.errors import (
    RelationFormatError,
    TemplateError,
    TooFewFactsError,
    UnknownRelationError,
)
from relation_neurons.relations.relation import subject_key
from relation_neurons.relations.split import split_subjects


def relation(name, subjects, **rest):
    templates = (
        rn.Template("The x of {} is"),
        rn.Template("What is the x of {}? It is", side="held_out"),
    )
    return rn.Relation(name, tuple(rn.Fact(s, ("a",)) for s in subjects), templates, **rest)


@pytest.mark.parametrize("text", ["The capital is", "{} and {}", "The capital of {} is "])
def test_a_template_has_exactly_one_hole_and_no_trailing_space(text):
    with pytest.raises(TemplateError) as caught:
        rn.Template(text)
    assert "expected exactly one" in str(caught.value) or "white space" in str(caught.value)


def test_braces_in_a_subject_stay_text():
    assert rn.Template("The x of {} is").fill("a{b}{}") == "The x of a{b}{} is"


def test_an_empty_relation_is_an_error():
    with pytest.raises(RelationFormatError, match="no facts"):
        rn.Relation("x", (), (rn.Template("{} is"),))


def test_pitfall_16_a_subject_is_on_one_side_everywhere_for_100_seeds():
    names = [f"s{i}" for i in range(60)]
    relations = [
        relation("a", names),
        relation("b", names[20:]),
        relation("c", [n.upper() for n in names[:40]]),
        relation("a", names[10:50], language="de"),
    ]
    for seed in range(100):
        sides = split_subjects(relations, 10, seed=seed)
        for one in relations:
            held = sum(sides[subject_key(f.subject)] == "held_out" for f in one.facts)
            assert 5 <= held <= 20, (one, seed, held)
            assert len(one.facts) - held >= 10
        assert set(sides) == {subject_key(n) for n in names}


def test_the_split_reaches_its_size_and_follows_its_seed():
    relations = [relation("a", [f"s{i}" for i in range(100)])]
    for held_out, expected in ((50, 50), (0.2, 20), (90, 50)):
        sides = split_subjects(relations, held_out, seed=3)
        assert sum(side == "held_out" for side in sides.values()) == expected
    assert split_subjects(relations, 50, seed=3) == split_subjects(relations, 50, seed=3)
    assert split_subjects(relations, 50, seed=3) != split_subjects(relations, 50, seed=4)


def test_too_few_facts_to_split():
    with pytest.raises(TooFewFactsError, match="'a' has 1 subject"):
        split_subjects([relation("a", ["one"])], 10)
    with pytest.raises(TooFewFactsError, match="held_out is 0"):
        split_subjects([relation("a", ["one", "two"])], 0)


def test_unknown_relations_and_paths_name_the_near_matches():
    with pytest.raises(UnknownRelationError, match="country_capital"):
        rn.load_relations("country_captial")
    with pytest.raises(KeyError):
        rn.load_relations("demo", names=["nothing_like_it"])


def test_a_csv_merges_and_counts(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "relation,subject,object,template\n"
        "likes,Ann,tea,{} likes\nlikes,Ann,tea,{} likes\nlikes,ann,coffee,{} likes\n"
        "likes,Bob,rum,What does {} like? It is\nlikes,,x,{} likes\n",
        encoding="utf-8",
    )
    (found,) = rn.load_relations(path)
    assert found.facts == (rn.Fact("Ann", ("tea", "coffee")), rn.Fact("Bob", ("rum",)))
    assert dict(found.notes) == {
        "read": 5,
        "duplicates": 1,
        "merged": 1,
        "empty": 1,
        "repaired": 0,
    }
    assert [(t.form, t.side) for t in found.templates] == [
        ("statement", "detection"),
        ("question", "held_out"),
    ]
    assert found.majority()[1] == 0.5


def test_a_table_without_its_columns_or_templates_is_an_error():
    with pytest.raises(RelationFormatError, match="lacks the column 'object'"):
        rn.load_relations(pd.DataFrame({"relation": ["a"], "subject": ["b"]}))
    with pytest.raises(TemplateError, match="without a template"):
        rn.load_relations(pd.DataFrame({"relation": ["a"], "subject": ["b"], "object": ["c"]}))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"samples": [{"subject": "a"}]}',
        '{"name": "x"}',
        '{"facts": 3, "templates": []}',
        '{"facts": [{"subject": "a", "objects": ["b"]}], "templates": [{"texxt": "{}"}]}',
    ],
)
def test_broken_json_is_one_clear_error(tmp_path, text):
    path = tmp_path / "broken.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RelationFormatError):
        rn.load_relations(path)


def test_the_lre_format_is_read(tmp_path):
    data = {
        "name": "star constellation name",
        "prompt_templates": ["{} is part of"],
        "prompt_templates_zs": ["{} is in", "Where is {}? It is in"],
        "samples": [{"subject": f"s{i}", "object": "Orion"} for i in range(3)],
    }
    (tmp_path / "star.json").write_text(json.dumps(data), encoding="utf-8")
    (found,) = rn.load_relations(tmp_path)
    assert found.name == "star"
    assert [t.side for t in found.templates] == ["detection", "detection", "held_out"]
    assert found.majority() == ("Orion", 1.0)


def test_relations_that_come_twice_are_refused():
    with pytest.raises(RelationFormatError, match="comes twice"):
        rn.load_relations([relation("a", ["x"]), relation("a", ["y"])])


def test_the_shipped_set_lists_and_loads():
    (names,) = (members for name, members in rn.list_shipped().items() if name == "demo")
    assert len(names) == 8
    loaded = rn.load_relations("demo")
    assert [r.name for r in loaded] == list(names)
    for one in loaded:
        assert {(t.form, t.side) for t in one.templates} == {
            (form, side) for form in ("statement", "question") for side in ("detection", "held_out")
        }


@pytest.mark.parametrize(
    "objects",
    ["Paris", (), ("a", None), ["a", 3]],
)
def test_answers_are_a_tuple_of_texts_and_never_letters(objects, as_a_user):
    with pytest.raises(RelationFormatError, match="expected a tuple of texts"):
        rn.Fact("France", objects)


def test_one_object_in_json_is_one_answer_and_null_is_none(tmp_path):
    path = tmp_path / "x.json"
    data = {
        "name": "x",
        "templates": [{"text": "{} is"}],
        "facts": [{"subject": "a", "objects": "Paris"}],
    }
    path.write_text(json.dumps(data), encoding="utf-8")
    assert rn.load_relations(path)[0].facts[0].objects == ("Paris",)
    for wrong in (None, True, {"b": 1}):
        data["facts"][0]["objects"] = [wrong]
        path.write_text(json.dumps(data), encoding="utf-8")
        with pytest.raises(RelationFormatError, match="a text belongs"):
            rn.load_relations(path)


def test_missing_cells_are_empty_and_never_the_text_nan():
    frame = pd.DataFrame(
        {
            "relation": ["r", "r", "r"],
            "subject": ["a", None, "c"],
            "object": ["x", "y", float("nan")],
            "template": ["{} is", "{} is", None],
            "language": ["en", "", None],
        }
    )
    (found,) = rn.load_relations(frame)
    assert found.facts == (rn.Fact("a", ("x",)),)
    assert found.notes["empty"] == 2 and found.language == "en"
    frame.loc[1, "relation"] = None
    with pytest.raises(RelationFormatError, match="row 2 has no relation"):
        rn.load_relations(frame)


@pytest.mark.parametrize(
    "wrong",
    [{"side": "heldout"}, {"text": 5}, {"separator": 3}, {"form": "riddle"}],
)
def test_a_template_with_a_wrong_field_is_refused(wrong, as_a_user):
    with pytest.raises(TemplateError):
        rn.Template(**{"text": "{} is", **wrong})


def test_names_that_stand_for_something_else_are_refused():
    for name in ("all relations", "(background)", " "):
        with pytest.raises(RelationFormatError, match="cannot be named"):
            relation(name, ["a", "b"])
