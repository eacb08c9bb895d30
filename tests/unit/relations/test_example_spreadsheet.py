"""The example spreadsheet: it is written once, read whole, and nothing in it is odd."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app
from relation_neurons.errors import RelationFormatError


@pytest.fixture
def example(tmp_path):
    return rn.write_example(tmp_path / "my_facts.csv")


def test_it_holds_three_relations_with_facts_enough_and_a_wording_to_judge_in(example):
    relations = rn.load_relations(example)
    assert len(relations) == 3
    for relation in relations:
        assert len(relation.facts) == 40
        assert len(relation.templates_of("detection")) == 2
        assert len(relation.templates_of("held_out")) == 1
        assert not relation.copied()
        assert relation.majority()[1] <= 0.2
        assert relation.notes["duplicates"] == relation.notes["empty"] == 0


def test_the_check_finds_nothing_to_mend(example):
    findings = rn.check_relations(example)
    assert not findings["stops"].any()
    plain = {
        "rows read",
        "facts",
        "wordings to find neurons in",
        "wordings to judge them in",
        "facts that the commonest answer alone gets right",
        "rows merged into their subject's fact",
        "subjects with several objects, all accepted as correct",
        "subjects of several relations, held out from all of them or from none",
    }
    assert set(findings["finding"]) <= plain


def test_a_file_that_is_there_is_left_as_it_is(example):
    example.write_text("mine", encoding="utf-8")
    with pytest.raises(RelationFormatError, match="is there already"):
        rn.write_example(example)
    assert example.read_text(encoding="utf-8") == "mine"
    with pytest.raises(RelationFormatError, match=r"ends in \.csv"):
        rn.write_example(example.with_suffix(".xlsx"))
    with pytest.raises(RelationFormatError, match="cannot be written"):
        rn.write_example(example.parent / "nowhere" / "my_facts.csv")


def test_the_command_writes_it_where_it_is_told(tmp_path, monkeypatch, example):
    monkeypatch.chdir(tmp_path / "..")
    other = tmp_path / "other.csv"
    done = CliRunner().invoke(app, ["relations", "example", "--out", str(other)])
    assert done.exit_code == 0 and f"relations check {other}" in done.output
    assert other.read_bytes() == example.read_bytes()
