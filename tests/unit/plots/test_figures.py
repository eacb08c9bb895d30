"""Figures hold the table's numbers, say them in words, and read no markup from data."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from helpers.fake_tables import (
    DOSES,
    make_all,
    make_curves,
    make_headline,
    make_matrix,
    make_overlap,
    make_ranking,
    make_scores,
    make_standings,
    names_of,
)
from relation_neurons import plots
from relation_neurons.analysis.interference import specificity
from relation_neurons.errors import RelationFormatError, UnknownOptionError, UnknownRelationError
from relation_neurons.formatting import number
from relation_neurons.plots.style import label

EVIL = "<script>x</script>_<b>y</b>"
MINUS = "\N{MINUS SIGN}"


def said_by(fig: go.Figure) -> str:
    """Everything a figure says, ticks and hover included."""
    parts = [fig.layout.title.text, fig.layout.title.subtitle.text]
    parts += [note.text for note in fig.layout.annotations]
    for axis in (*fig.select_xaxes(), *fig.select_yaxes()):
        parts += [axis.title.text, *(axis.ticktext or ())]
    for trace in fig.data:
        hover = trace.hovertext
        parts += [trace.name, *np.ravel(np.array(hover if hover is not None else [], dtype=object))]
    return "\n".join(str(part) for part in parts if part)


def test_interference_holds_the_table_with_zero_in_the_middle() -> None:
    names = names_of(3)
    matrix = make_matrix(names)
    fig = plots.interference(matrix)
    heat = fig.data[0]
    wide = matrix.pivot(index="ablated", columns="relation", values="effect").loc[names, names]
    np.testing.assert_allclose(np.array(heat.z, dtype=float), wide.to_numpy())
    assert heat.zmin == -heat.zmax == -0.45
    assert heat.colorscale[0][1] == "#B84A00" and heat.colorscale[-1][1] == "#005A8F"
    assert [s.x0 for s in fig.layout.shapes] == [-0.5, 0.5, 1.5], "home is outlined"
    assert list(fig.layout.yaxis.ticktext) == ["country 0", "country 1", "country 2"]


def test_interference_marks_only_significant_cells() -> None:
    fig = plots.interference(make_matrix(names_of(3)))
    text = fig.data[0].text
    assert text[0][0] == f"{MINUS}0.45*"
    assert text[0][2] == f"{MINUS}0.07"
    assert text[0][1] == "+0.19", "its interval leaves out 0, and yet it is no finding"
    said = fig.layout.title.subtitle.text
    assert "A star marks what is shown. At home 3 of 3 cells show harm" in said
    assert "Away from home 0 of 6 cells show harm and 0 improvement" in said


def test_interference_says_how_many_draws_a_star_takes() -> None:
    matrix = make_matrix(names_of(3)).assign(draws=4, draws_needed=70, significant=False)
    fig = plots.interference(matrix)
    said = fig.layout.title.subtitle.text
    assert "no cell can be significant with 4 random sets: that takes 70 more (home_draws)" in said
    assert "70 more (judged_draws)" in said and "star" not in said
    assert "cannot be significant with 4 random sets" in fig.data[0].hovertext[0][0]


def test_interference_says_a_cell_in_words() -> None:
    hover = plots.interference(make_matrix(names_of(3))).data[0].hovertext[2][0]
    assert hover.replace("<br>", " ") == (
        "Ablating 92 neurons of <i>country 2</i> changes <i>country 0</i>: "
        f"{MINUS}0.07 net flips per prompt (16 prompts; control {MINUS}0.03; 95% interval of the "
        f"difference {MINUS}0.27 to +0.18) not significant: p = 0.3, q = 0.4"
    )


def test_interference_without_controls_marks_nothing() -> None:
    nothing = dict.fromkeys(("control", "low", "high", "p_value", "q_value"), math.nan)
    nothing |= {"least_p": math.nan, "draw_overlap": math.nan}
    matrix = make_matrix(names_of(2)).assign(**nothing, draws=0, significant=False)
    fig = plots.interference(matrix)
    heat = fig.data[0]
    assert "*" not in str(heat.text) and "control n/a" in heat.hovertext[0][0]
    assert "Not tested" in heat.hovertext[0][0]
    assert "no random sets to compare with" in fig.layout.title.subtitle.text


def test_dose_curve_holds_the_table() -> None:
    curves = make_curves(names_of(2))
    fig = plots.dose_curve(curves, "country_1")
    lines = {trace.name: trace for trace in fig.data if trace.mode == "lines+markers"}
    home = lines["home"]
    here = curves[(curves["ablated"] == "country_1") & (curves["where"] == "home")]
    ranked = here[here["kind"] == "ranked"]
    assert list(home.x) == list(DOSES)
    np.testing.assert_allclose(home.y, ranked["effect"])
    assert lines["elsewhere"].line.dash == "dash" and len(lines) == 4
    band = next(trace for trace in fig.data if trace.fill == "toself")
    assert list(band.y) == [*ranked["high"], *ranked["low"][::-1]]
    assert fig.layout.xaxis.type == "log" and list(fig.layout.xaxis.tickvals) == list(DOSES)
    assert "net flips per prompt" in fig.layout.yaxis.title.text
    with pytest.raises(UnknownRelationError, match="country_1"):
        plots.dose_curve(curves, "country_9")


def test_dose_curves_have_one_legend() -> None:
    fig = plots.dose_curves(make_curves(names_of(8)))
    shown = [trace.name for trace in fig.data if trace.showlegend]
    assert len(shown) == 4 == len(set(shown))
    assert {a.text for a in fig.layout.annotations} >= {f"country {i}" for i in range(8)}


def test_headline_is_sorted_and_holds_the_intervals() -> None:
    table = make_headline(names_of(4))
    fig = plots.headline(table, dose=92)
    assert list(fig.layout.yaxis.ticktext) == [
        *(f"country {i}" for i in (3, 2, 1, 0)),
        "<b>all relations</b>",
    ]
    assert [trace.name for trace in fig.data][:2] == ["home", "elsewhere"]
    home = fig.data[0]
    np.testing.assert_allclose(home.x, table[table["what"] == "home"]["effect"])
    np.testing.assert_allclose(home.error_x.array, 0.1)
    np.testing.assert_allclose(home.error_x.arrayminus, 0.1)
    assert [round(y) for y in home.y] == [3, 2, 1, 0, 4]


def test_specificity_overlap_and_scores_hold_their_tables() -> None:
    table = specificity(make_matrix(names_of(3)))
    fig = plots.specificity(table)
    for trace, column in zip(fig.data, ("home", "elsewhere", "others_here"), strict=True):
        np.testing.assert_allclose(trace.x, table[column])

    heat = plots.overlap(make_overlap(names_of(3))).data[0]
    z = np.array(heat.z, dtype=float)
    assert np.isnan(np.diag(z)).all() and (z[~np.eye(3, dtype=bool)] == 7).all()
    fig = plots.overlap(make_overlap(names_of(3)), value="ratio")
    said = fig.layout.title.subtitle.text
    assert "By chance a pair shares 3.5 neurons" in said
    assert "All pairs together share 21, by chance 10.5 (p = 0.02, 99 deals)." in said
    assert "(chance 3.5; 2 times; p = 0.03, q = 0.06)" in fig.data[0].hovertext[0][1]
    with pytest.raises(UnknownOptionError, match="jaccard"):
        plots.overlap(make_overlap(names_of(3)), value="jacard")

    contrasts = plots.score_comparison(make_scores(names_of(3)))
    assert [t.name for t in contrasts.data] == [
        "known facts",
        "facts it gets wrong",
        "contribution control",
    ]
    np.testing.assert_allclose(contrasts.data[1].x, -0.35)
    np.testing.assert_allclose(contrasts.data[2].x, -0.03)


def test_layers_count_neurons_and_mark_sinks() -> None:
    frame, neurons = make_ranking(names_of(2))
    fig = plots.layers(frame, neurons, dose=10)
    assert np.array(fig.data[0].z).tolist() == [[2.0] * 5 + [0.0] * 5] * 2
    assert list(fig.data[0].text[0][:2]) == ["2•", "2"]
    assert "1.0 neurons in each" in fig.layout.title.subtitle.text
    bars = plots.layers(frame, neurons, "country_0", dose=10).data
    np.testing.assert_array_equal(np.add(bars[0].y, bars[1].y), [2] * 5 + [0] * 5)
    assert bars[1].y[0] == 1
    with pytest.raises(UnknownOptionError, match="specific"):
        plots.layers(frame, neurons, contrast="specfic")


def test_transfer_is_by_language_where_there_are_several() -> None:
    rows = [
        {"ablated": "capital", "ablated_language": a, "relation": "capital", "language": b}
        | {"dose": 92, "n": 16, "effect": -0.4, "control": 0.0, "low": -0.6, "high": -0.2}
        | {"transfer": 1.0 if a == b else 0.5}
        for a in ("en", "de")
        for b in ("en", "de")
    ]
    fig = plots.transfer(pd.DataFrame(rows))
    assert list(fig.layout.yaxis.ticktext) == ["capital (en)", "capital (de)"]
    assert list(fig.layout.xaxis.ticktext) == ["en", "de"]
    np.testing.assert_allclose(np.array(fig.data[0].z, dtype=float), [[1, 0.5], [0.5, 1]])


def test_markup_in_data_stays_text() -> None:
    for name, fig in make_all([EVIL, "plain", "other"]).items():
        said = said_by(fig)
        assert "<script" not in said and "<b>y" not in said, name
        assert "&lt;script&gt;" in said, name


def test_a_figure_names_what_it_lacks_within_its_own_height() -> None:
    table = make_overlap(names_of(3))
    plain = plots.overlap(table)
    assert "Not shown" not in said_by(plain)
    table.attrs["left_out"] = {"noun_plural <b>": "knows 3 of 9"}
    one = plots.overlap(table)
    assert "too little known to be ranked: noun plural &lt;b&gt;." in one.layout.title.subtitle.text
    table.attrs["left_out"] = {f"relation_number_{i}": "" for i in range(60)}
    many = plots.overlap(table)
    said = many.layout.title.subtitle.text
    more = said.count("<br>") - plain.layout.title.subtitle.text.count("<br>")
    assert many.layout.height - plain.layout.height == more * 19
    lines = said[said.index("<b>Not shown") :].split("<br>")
    assert len(lines) == 4 and max(map(len, lines)) <= 117
    assert said.endswith(" more.") and "relation number 7," in said


@pytest.mark.parametrize("count", [1, 8, 48])
def test_every_figure_takes_few_and_many_relations(count: int) -> None:
    for name, fig in make_all(names_of(count)).items():
        assert isinstance(fig, go.Figure)
        assert fig.layout.height > 200 and fig.layout.title.text, name
        assert fig.to_json()
    if count == 48:
        fig = plots.interference(make_matrix(names_of(48)))
        assert fig.layout.xaxis.tickfont.size >= 9 and fig.layout.xaxis.tickangle == -90
        assert fig.layout.height - fig.layout.margin.t > 48 * fig.layout.xaxis.tickfont.size
        assert set(np.ravel(fig.data[0].text)) == {"", "*"}, "no room for numbers"


@pytest.mark.parametrize(
    ("draw", "table", "column"),
    [
        (plots.dose_curves, make_curves(names_of(2)), "where"),
        (plots.interference, make_matrix(names_of(2)), "low"),
        (plots.specificity, specificity(make_matrix(names_of(2))), "others_here"),
        (plots.overlap, make_overlap(names_of(2)), "expected"),
        (plots.score_comparison, make_scores(names_of(2)), "control"),
        (plots.headline, make_headline(names_of(2)), "what"),
        (plots.standings, make_standings(names_of(2)), "specificity"),
    ],
)
def test_a_missing_column_or_an_empty_table_is_named(draw, table, column) -> None:
    with pytest.raises(RelationFormatError, match=f"'{column}'"):
        draw(table.drop(columns=column))
    with pytest.raises(RelationFormatError, match="no row"):
        draw(table.iloc[:0])


def test_numbers_and_names_are_fit_for_reading() -> None:
    assert number(-0.004) == "0.00" and number(None) == "n/a" == number(math.nan)
    assert label("a_" * 40, longest=10) == "a a a a a…"
