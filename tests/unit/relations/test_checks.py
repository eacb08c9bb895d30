"""The check names every kind of dirt that pitfall 9 and its neighbours list, with counts."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app


def found(source, **rest):
    table = rn.check_relations(source, **rest)
    return {(row.relation, row.finding): row for row in table.itertuples()}


def frame(rows, templates=("{} is", "What is {}? It is")):
    table = pd.DataFrame(rows, columns=["relation", "subject", "object"])
    table["template"] = [templates[i % len(templates)] for i in range(len(table))]
    return table


DIRTY = frame(
    [
        ("r", "University of Madrid", "Madrid"),
        ("r", "Bras\\u00edlia", "Brazil"),
        ("r", "Ann", "tea"),
        ("r", "ann", "tea"),
        ("r", "Ann", "rum"),
        ("r", "", "x"),
        ("r", "Leo Ash", "Mia Ash"),
        ("s", "Ann", "red"),
        ("s", "Bob", "red"),
    ]
)


def test_the_rows_of_a_dirty_table_are_counted_with_examples():
    rows = found(DIRTY)
    counts = {
        "rows read": 7,
        "rows dropped, empty": 1,
        "rows dropped, duplicates": 1,
        "rows merged into their subject's fact": 1,
        "subjects with several objects, all accepted as correct": 1,
        "double escapes or invisible characters, mended": 1,
        "answers that stand in their subject": 1,
        "answers of which the first or last word stands in the subject": 1,
        "too few facts, the relation will be left out": 1,
    }
    for finding, count in counts.items():
        assert rows["r", finding].count == count, finding
    assert (
        "Ann -> tea | rum"
        in rows["r", "subjects with several objects, all accepted as correct"].examples
    )
    assert "Brasília" in rows["r", "double escapes or invisible characters, mended"].examples
    assert rows["s", "facts that the commonest answer alone gets right"].count == 2
    assert "red (100%)" in rows["s", "facts that the commonest answer alone gets right"].examples
    shared = rows[
        "all relations", "subjects of several relations, held out from all of them or from none"
    ]
    assert shared.count == 1 and shared.examples == "Ann: r, s"


def test_the_counts_are_those_of_the_load():
    rows = found(DIRTY)
    notes = rn.load_relations(DIRTY)[0].notes
    assert rows["r", "rows read"].count == notes["read"]
    assert rows["r", "rows dropped, duplicates"].count == notes["duplicates"]
    assert rows["r", "rows merged into their subject's fact"].count == notes["merged"]
    assert rows["r", "rows dropped, empty"].count == notes["empty"]


@pytest.mark.parametrize("template", ["no hole", "{} and {}", "The x of {} is "])
def test_a_template_that_cannot_be_used_stops(template):
    table = rn.check_relations(frame([("r", "a", "b"), ("r", "c", "d")], (template,)))
    (row,) = table[table["finding"] == "templates that cannot be used"].itertuples()
    assert row.stops and repr(template) in row.examples


def test_what_would_stop_a_run_stops_and_the_rest_does_not():
    one = frame([("r", "a", "b")])
    assert found(one)["r", "too few facts to split"].stops
    many = frame([("r", f"s{i}", f"o{i % 9}") for i in range(40)])
    table = rn.check_relations(many)
    assert not table["stops"].any()
    facts = (rn.Fact("a", ("b",)), rn.Fact("c", ("d",)))
    only = [rn.Relation("x", facts, (rn.Template("{} is", side="held_out"),))]
    assert found(only)["x", "no detection template"].stops
    small = found(frame([("r", "a", "b"), ("r", "c", "d")]))
    assert small["all relations", "no relation with facts enough to be ranked"].stops


def test_one_wording_and_one_form_are_said():
    rows = found(frame([("r", f"s{i}", "o") for i in range(30)], ("{} is",)))
    assert "judged on the wording" in rows["r", "no held-out template"].examples
    assert rows["r", "templates of one form only"].count == 1


def test_relations_that_come_twice_stop(tmp_path):
    for name in ("a", "b"):
        rn.save_relations(rn.load_relations("demo/word_opposite"), tmp_path / name)
    rows = found(tmp_path)
    assert rows["word_opposite", "relations of the same name and language"].stops


def test_facts_and_wordings_are_shown_with_the_side_they_are_on():
    rows = found(
        frame([("r", f"s{i}", f"o{i}") for i in range(40)], ("{} is", "Is {}? It is", "{},"))
    )
    assert rows["r", "facts"].count == 40
    assert rows["r", "facts"].examples.startswith("s0 -> o0; ")
    assert rows["r", "wordings to find neurons in"].examples == "'{} is'; 'Is {}? It is'"
    assert rows["r", "wordings to judge them in"].examples == "'{},'"


@pytest.mark.parametrize(
    ("count", "finding"),
    [
        (19, "too few facts, the relation will be left out"),
        (20, "few facts to spare"),
        (29, "few facts to spare"),
        (30, None),
    ],
)
def test_how_many_facts_are_few_is_said(count, finding):
    rows = found(frame([("r", f"s{i}", f"o{i}") for i in range(count)]))
    few = {name for _, name in rows if "few facts" in name}
    assert few == ({finding} if finding else set())
    if finding:
        assert "10 known facts to find neurons on and 10 others" in rows["r", finding].examples


def test_shipped_sets_pass(tmp_path):
    assert not rn.check_relations("demo")["stops"].any()


def invoke(*args):
    return CliRunner().invoke(app, ["relations", *map(str, args)])


def test_the_command_ends_with_0_or_1(tmp_path):
    good = invoke("check", "demo/country_capital")
    assert good.exit_code == 0 and "nothing would stop a run" in good.output
    assert "No model was asked: --model" in good.output and "needs 10" in good.output
    path = tmp_path / "bad.json"
    path.write_text(
        json.dumps(
            {"name": "x", "templates": ["no hole"], "facts": [{"subject": "a", "objects": ["b"]}]}
        ),
        encoding="utf-8",
    )
    bad = invoke("check", path)
    assert bad.exit_code == 1 and "STOPS templates that cannot be used: 1" in bad.output
    assert "1 finding would stop a run; mend what STOPS" in bad.output


def test_list_show_and_convert(tmp_path):
    listed = invoke("list").output
    assert "atlas:" in listed and "demo: 8 relations" in listed and "also de es fr ja zh" in listed
    shown = invoke("show", "element_symbol", "--languages", "de").output
    assert ("(de)" in shown and "Natrium -> Na" in shown) or "Wasserstoff -> H" in shown
    made = invoke("convert", "demo", tmp_path / "demo.csv")
    assert made.exit_code == 0 and "written: 1 file at" in made.output
    assert len(rn.load_relations(tmp_path / "demo.csv")) == 8
