"""Themes change colours and nothing else; images are written where a browser is, with a hint where not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import plotly.graph_objects as go
import pytest

from relation_neurons import plots
from relation_neurons.errors import ResultsError, UnknownOptionError
from relation_neurons.plots.style import _DARK, INK, PAPER, TEMPLATES, finish

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no browser: chromium or google-chrome")


def make_figure(name: str = "#222222") -> go.Figure:
    """A figure whose data says what is also a colour."""
    fig = go.Figure(go.Bar(x=[name, "white"], y=[1, 2], marker={"color": INK}, name=name))
    fig.add_scatter(x=[name], y=[1], fill="toself", fillcolor="rgba(34,34,34,0.15)")
    return finish(fig, "Title", "one<br>two", height=300, width=700, legend=True)


def luminance(colour: str) -> float:
    """Relative luminance, after WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_dark_changes_colours_and_nothing_that_data_says() -> None:
    light = make_figure()
    dark = plots.themed(light, "dark")
    assert dark.data[0].marker.color == _DARK[INK] and dark.data[0].name == "#222222"
    assert list(dark.data[0].x) == ["#222222", "white"]
    red, green, blue = (int(_DARK[INK][i : i + 2], 16) for i in (1, 3, 5))
    assert dark.data[1].fillcolor == f"rgba({red},{green},{blue},0.15)"
    assert dark.layout.template.layout.paper_bgcolor == _DARK[PAPER]
    assert light.data[0].marker.color == INK, "the figure given is left as it was"
    assert (dark.layout.width, dark.layout.height) == (light.layout.width, light.layout.height)


def test_light_is_the_same_figure_and_an_unknown_theme_is_named() -> None:
    fig = make_figure()
    assert json.loads(plots.themed(fig, "light").to_json()) == json.loads(fig.to_json())
    with pytest.raises(UnknownOptionError, match=r"'drak'.*dark"):
        plots.themed(fig, "drak")


def test_print_leaves_the_title_to_the_caption_and_keeps_the_plot_area() -> None:
    fig = make_figure()
    printed = plots.themed(fig, "print")
    assert printed.layout.title.text is None
    area = [f.layout.height - f.layout.margin.t - f.layout.margin.b for f in (fig, printed)]
    assert area[0] == area[1] and printed.layout.margin.t >= 24, "the legend has its room"
    assert plots.themed(printed, "print").layout.height == printed.layout.height


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_and_marks_stand_out_from_the_page(theme: str) -> None:
    layout = TEMPLATES[theme].layout
    page = layout.paper_bgcolor
    assert contrast(layout.font.color, page) > 12
    assert all(contrast(colour, page) > 2.2 for colour in layout.colorway), "marks"
    assert contrast(layout.hoverlabel.font.color, layout.hoverlabel.bgcolor) > 12


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_middle_of_a_diverging_scale_is_the_page(theme: str) -> None:
    fig = go.Figure(go.Heatmap(z=[[0]], colorscale=[[0, "#B84A00"], [0.5, PAPER], [1, "#005A8F"]]))
    middle = plots.themed(fig, theme).data[0].colorscale[1][1]
    assert middle == TEMPLATES[theme].layout.paper_bgcolor


@needs_browser
@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")]
)
def test_a_figure_is_written_as_an_image_of_its_size(tmp_path, kind, start) -> None:
    path = plots.save(make_figure(), tmp_path / "new" / f"figure.{kind}", theme="dark", scale=2)
    data = path.read_bytes()
    assert data.startswith(start) and path == tmp_path / "new" / f"figure.{kind}"
    assert [p.name for p in path.parent.iterdir()] == [path.name], "nothing else is left"
    if kind == "png":
        assert int.from_bytes(data[16:20]) == 2 * 700


def test_a_missing_browser_is_a_hint(tmp_path, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise RuntimeError("no browser")

    monkeypatch.setattr("plotly.io.write_images", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ResultsError, match=r"-e \"\.\[images\]\".*plotly_get_chrome") as refused:
        plots.save(make_figure(), "figure.png")
    said = str(refused.value)
    assert said.startswith("The figure figure cannot be drawn") and not said.endswith("..")
    with pytest.raises(UnknownOptionError, match="'jpeg'"):
        plots.save(make_figure(), tmp_path / "figure.jpeg")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be written"):
        plots.save(make_figure(), tmp_path / "file" / "figure.png")
