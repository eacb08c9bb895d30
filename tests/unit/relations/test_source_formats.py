"""Every format that relations come in, its way back, and 2,000 malformed inputs."""

from __future__ import annotations

import json
import string

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import relation_neurons as rn
from relation_neurons.errors import (
    RelationFormatError,
    RelationNeuronsError,
    TemplateError,
    UnknownRelationError,
)
from relation_neurons.relations.formats import SUFFIXES
from relation_neurons.relations.relation import RESERVED
from relation_neurons.relations.saving import FORMATS, relations_frame

MINE = (
    rn.Relation(
        "likes",
        (
            rn.Fact("Ann", ("tea", "coffee, black"), id="1", year=2024),
            rn.Fact('Bob "the" {}', ("rum",), id="2"),
        ),
        (
            rn.Template("{} likes"),
            rn.Template("What does {} like? It is", "question"),
            rn.Template("{} is fond of", side="held_out"),
        ),
    ),
    rn.Relation(
        "likes",
        (rn.Fact("アン", ("お茶",), id="1"), rn.Fact("ボブ", ("ラム",), id="2")),
        (rn.Template("{}の好きなものは", separator=""),),
        language="ja",
    ),
)


def plain(relations):
    return [(r.name, r.language, r.facts, r.templates) for r in relations]


@pytest.mark.parametrize("form", [f for f in FORMATS if f != "lre"])
def test_what_is_written_reads_back_as_it_was(tmp_path, form):
    path = tmp_path / ("mine" if form == "json" else f"mine.{form}")
    written = rn.save_relations(MINE, path, format=form)
    assert all(file.is_file() for file in written)
    assert plain(rn.load_relations(path)) == plain(MINE)
    again = tmp_path / "again" / path.name
    rn.save_relations(rn.load_relations(path), again, format=form)
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    assert files[0].read_bytes() == files[len(files) // 2].read_bytes()


def test_the_demo_set_makes_the_round_trip_in_every_format(tmp_path):
    demo = rn.load_relations("demo")
    for form in ("csv", "tsv", "jsonl"):
        rn.save_relations(demo, tmp_path / f"demo.{form}")
        assert plain(rn.load_relations(tmp_path / f"demo.{form}")) == plain(demo)
    rn.save_relations(demo, tmp_path / "json")
    assert plain(rn.load_relations(tmp_path / "json")) == plain(demo)


def test_lre_json_keeps_facts_and_templates_and_the_one_held_out(tmp_path):
    english = MINE[:1]
    (file,) = rn.save_relations(english, tmp_path / "out", format="lre")
    data = json.loads(file.read_text(encoding="utf-8"))
    assert set(data) == {
        "name",
        "prompt_templates",
        "prompt_templates_zs",
        "properties",
        "samples",
    }  # LRE's own reader refuses any other key
    (found,) = rn.load_relations(tmp_path / "out")
    assert found.name == "likes" and found.templates == english[0].templates
    assert [(f.subject, f.objects) for f in found.facts] == [
        (f.subject, f.objects) for f in english[0].facts
    ]


def test_a_dataframe_and_relations_are_sources_too():
    frame = relations_frame(MINE)
    assert plain(rn.load_relations(frame)) == plain(MINE)
    assert rn.load_relations(MINE) == MINE
    assert rn.load_relations(MINE[0]) == MINE[:1]


def test_json_lines_take_one_object_or_several_and_templates_anywhere(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"relation": "r", "subject": "a", "object": "x", "template": "{} is"}\n\n'
        '{"relation": "r", "subject": "b", "objects": ["y", "z"], "templates": ["{} was"]}\n',
        encoding="utf-8",
    )
    (found,) = rn.load_relations(path)
    assert found.facts == (rn.Fact("a", ("x",)), rn.Fact("b", ("y", "z")))
    assert [t.side for t in found.templates] == ["detection", "held_out"]
    path.write_text('{"relation": "r", "subject": "a"}\n', encoding="utf-8")
    with pytest.raises(RelationFormatError, match="row 1"):
        rn.load_relations(path)
    path.write_text('{"relation": "r"\n', encoding="utf-8")
    with pytest.raises(RelationFormatError, match="line 1"):
        rn.load_relations(path)


def test_a_shipped_relation_lends_its_templates_in_the_language_asked(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("relation,subject,object\ncountry_capital,Freedonia,Fredville\n", "utf-8")
    (found,) = rn.load_relations(path)
    assert len(found.templates) >= 3
    path.write_text("relation,subject,object,language\ncountry_capital,A,B,xx\n", "utf-8")
    with pytest.raises(TemplateError, match="not a shipped one in 'xx'"):
        rn.load_relations(path)


def test_names_and_sets_can_be_listed_with_commas():
    two = rn.load_relations("demo/country_capital, demo/word_opposite")
    assert [r.name for r in two] == ["country_capital", "word_opposite"]
    with pytest.raises(UnknownRelationError, match="country_capital"):
        rn.load_relations("country_captial")
    with pytest.raises(RelationFormatError, match="comes twice"):
        rn.load_relations("demo/country_capital,demo")


def test_languages_of_a_shipped_set_are_english_unless_asked():
    assert {r.language for r in rn.load_relations("element_symbol")} == {"en"}
    both = rn.load_relations("element_symbol", languages="de,en")
    assert {r.language for r in both} == {"en", "de"}
    every = {r.language for r in rn.load_relations("element_symbol", languages="all")}
    assert every == {"en", "de", "es", "fr", "zh", "ja"}
    with pytest.raises(UnknownRelationError, match="language 'tlh'"):
        rn.load_relations("element_symbol", languages=["tlh"])
    assert {r.language for r in rn.load_relations(MINE)} == {"en", "ja"}
    assert {r.language for r in rn.load_relations(MINE, languages="ja")} == {"ja"}


def test_dirt_is_mended_and_counted():
    frame = pd.DataFrame(
        {
            "relation": "r",
            "subject": ["Bras\\u00edlia", "a\u200bb", "pair \\ud83d\\ude00", "clean  up"],
            "object": ["x", "y", "z", "w\x00"],
            "template": "{} is",
        }
    )
    (found,) = rn.load_relations(frame)
    assert [f.subject for f in found.facts] == ["Brasília", "ab", "pair 😀", "clean up"]
    assert found.facts[3].objects == ("w",)
    assert found.notes["repaired"] == 4
    with pytest.raises(RelationFormatError, match="half a character"):
        rn.load_relations(frame.assign(subject="half \\ud83d"))


# --- malformed inputs -------------------------------------------------------------------------

text = st.text(max_size=12)
scalar = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text)
HEADS = "name language facts templates samples prompt_templates prompt_templates_zs subject object"
PARTS = "objects id year text form side separator relation template"
keys = st.sampled_from(f"{HEADS} {PARTS}".split())
anything = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(keys, text), inner, max_size=6)
    ),
    max_leaves=12,
)
template = st.one_of(st.sampled_from(["{} is", "The x of {} is", "", "{}{}", "{} is "]), text)
near_json = st.fixed_dictionaries(
    {},
    optional={
        "name": scalar,
        "language": scalar,
        "facts": st.lists(
            st.fixed_dictionaries({}, optional={"subject": scalar, "objects": anything}), max_size=4
        ),
        "templates": st.lists(
            st.one_of(
                template, st.fixed_dictionaries({}, optional={"text": template, "side": text})
            ),
            max_size=3,
        ),
        "samples": st.lists(
            st.fixed_dictionaries({}, optional={"subject": scalar, "object": anything}), max_size=4
        ),
        "prompt_templates": st.one_of(scalar, st.lists(template, max_size=3)),
    },
)
column = st.one_of(
    st.sampled_from(["relation", "subject", "object", "template", "language", "year", "id"]), text
)
cell = st.one_of(text, st.text(alphabet=string.printable, max_size=12), st.just('"'))
table = st.lists(st.lists(cell, max_size=7), max_size=6)


def survives(path):
    """A result, or one of the package's own errors; the check then agrees on whether it loads."""
    try:
        loaded = rn.load_relations(path)
    except RelationNeuronsError as error:
        assert str(error).strip()
        loaded = None
    try:
        findings = rn.check_relations(path)
    except RelationNeuronsError:
        assert loaded is None
        return
    assert loaded is not None or findings["stops"].any()


FUZZ = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)


@st.composite
def spoilt_files(draw, valid):
    """A valid file with a few stretches of it cut out, repeated or replaced; or any bytes at all."""
    suffix = draw(st.sampled_from(SUFFIXES))
    content = bytearray(
        draw(st.one_of(st.just(valid[suffix]), st.just(valid[suffix]), st.binary()))
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 20)))
        piece = bytes(content[start:stop])
        other = draw(
            st.one_of(st.just(b""), st.just(piece * 2), st.binary(max_size=4), st.just(b'"'))
        )
        content[start:stop] = other
    return suffix, bytes(content)


@pytest.mark.usefixtures("as_a_user")
def test_any_bytes_give_a_result_or_our_error(tmp_path):
    valid = {}
    for suffix in (".csv", ".tsv", ".jsonl"):
        (file,) = rn.save_relations(MINE, tmp_path / f"valid{suffix}")
        valid[suffix] = file.read_bytes()
    valid[".json"] = rn.save_relations(MINE[0], tmp_path / "valid")[0].read_bytes()

    @FUZZ
    @given(spoilt_files(valid))
    def spoil(file):
        suffix, content = file
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        survives(path)

    spoil()


@pytest.mark.usefixtures("as_a_user")
@FUZZ
@given(st.one_of(anything, near_json), st.sampled_from([".json", ".jsonl"]))
def test_any_json_gives_a_result_or_our_error(tmp_path, data, suffix):
    path = tmp_path / f"x{suffix}"
    path.write_text(json.dumps(data), encoding="utf-8")
    survives(path)


@pytest.mark.usefixtures("as_a_user")
@FUZZ
@given(st.lists(column, max_size=7), table, st.sampled_from([".csv", ".tsv"]))
def test_any_table_gives_a_result_or_our_error(tmp_path, header, rows, suffix):
    path = tmp_path / f"x{suffix}"
    separator = "," if suffix == ".csv" else "\t"
    lines = [separator.join(line) for line in (header, *rows)]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    survives(path)


@pytest.mark.usefixtures("as_a_user")
@FUZZ
@given(
    st.lists(st.tuples(scalar, scalar, scalar, st.one_of(scalar, template)), max_size=6),
    st.one_of(scalar, st.lists(scalar, max_size=3)),
)
def test_any_dataframe_or_name_gives_a_result_or_our_error(rows, other):
    frame = pd.DataFrame(rows, columns=["relation", "subject", "object", "template"], dtype=object)
    survives(frame)
    try:
        rn.load_relations(other)
    except RelationNeuronsError as error:
        assert str(error).strip()


def test_reserved_names_stop_in_the_check_as_in_the_load():
    frame = pd.DataFrame(
        {"relation": RESERVED[0], "subject": ["a"], "object": ["b"], "template": "{} is"}
    )
    with pytest.raises(RelationFormatError, match="cannot be named"):
        rn.load_relations(frame)
    assert rn.check_relations(frame)["stops"].any()


def test_a_template_stands_on_one_side_only():
    """Else prompts judged as unseen would be those that detection saw."""
    rows = [
        ("r", "France", "Paris", "{} is", "detection"),
        ("r", "Spain", "Madrid", "{}  is", "held_out"),
    ]
    frame = pd.DataFrame(rows, columns=["relation", "subject", "object", "template", "side"])
    with pytest.raises(TemplateError, match="twice"):
        rn.load_relations(frame)
    assert rn.check_relations(frame)["stops"].any()


def test_cells_keep_their_meaning():
    frame = pd.DataFrame(
        {
            "relation": "r",
            "subject": ["a", "b", "c"],
            "object": pd.Series([1969, None, ["x", "y"]], dtype=object),
            "id": [1.0, None, 0.0],
            "template": "{} is",
        }
    )
    (found,) = rn.load_relations(frame)
    assert found.facts == (rn.Fact("a", ("1969",), id="1"), rn.Fact("c", ("x", "y"), id="0"))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("relation,subject,object,lang", "did you mean 'language'"),
        ("relation,subject,objects", "did you mean 'object'"),
        ("relation,subject,object,object", "'object' twice"),
        ("relation;subject;object", "not separated by commas"),
    ],
)
def test_columns_that_would_be_lost_are_refused(tmp_path, header, match):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n" + ",".join("abcd"[: header.count(",") + 1]) + "\n", "utf-8")
    with pytest.raises(RelationFormatError, match=match):
        rn.load_relations(path)


def test_rows_of_another_width_and_other_encodings_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("Relation,Subject,Object,Template\nr,a,b,{} is\n", "utf-8")
    assert rn.load_relations(path)[0].facts == (rn.Fact("a", ("b",)),)
    path.write_text("relation,subject,object,template\nr,a,b,{} is, so\nr,c,d,{} is, so\n", "utf-8")
    with pytest.raises(RelationFormatError, match="as many fields as the header"):
        rn.load_relations(path)
    path.write_text("relation,subject,object\nr,a,b\n", "utf-16")
    with pytest.raises(RelationFormatError, match="CSV UTF-8"):
        rn.load_relations(path)


def test_nothing_is_overwritten_or_written_where_it_cannot_be_read(tmp_path):
    slash = [rn.Relation(n, MINE[0].facts, MINE[0].templates) for n in ("a/b", "a_b")]
    with pytest.raises(RelationFormatError, match="taken or hidden"):
        rn.save_relations(slash, tmp_path / "out")
    with pytest.raises(RelationFormatError, match="neither languages nor separators"):
        rn.save_relations(MINE, tmp_path / "lre", format="lre")
    for name, form in (("x.xlsx", None), ("x.json", None), ("y.csv", "jsonl")):
        with pytest.raises(RelationFormatError, match="does not fit"):
            rn.save_relations(MINE, tmp_path / name, format=form)
    assert not list(tmp_path.iterdir())


def test_the_language_stands_in_the_name_where_the_file_does_not_say_it(tmp_path):
    data = {"templates": ["{} ist"], "facts": [{"subject": "a", "objects": ["b"]}]}
    (tmp_path / "cap.de.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "cap.de.json").write_text(json.dumps(data), encoding="utf-8")
    (found,) = rn.load_relations(tmp_path)
    assert (found.name, found.language) == ("cap", "de")
    (tmp_path / "cap.de.json").write_text(json.dumps(data | {"language": None}), encoding="utf-8")
    with pytest.raises(RelationFormatError, match="language None"):
        rn.load_relations(tmp_path)
