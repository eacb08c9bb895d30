"""`relation-neurons report --images`: which files, in which colours, and what is refused."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.cli.app import app
from relation_neurons.errors import UnknownOptionError
from relation_neurons.plots.style import BLUE, TEMPLATES

BROWSERS = ("chromium", "google-chrome", "chrome")
needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, BROWSERS)), reason=f"needs a browser: {', '.join(BROWSERS)}"
)
DARK = TEMPLATES["dark"].layout.paper_bgcolor


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run on a planted model, of which only the figures matter."""
    out = tmp_path_factory.mktemp("images") / "run"
    planted = rn.planted_model(relations=3, seed=0)
    quick = {
        "judged_draws": 1,
        "home_draws": 0,
        "checks": (),
        "blocks": 0,
        "permutations": 0,
        "repeats": 0,
    }
    rn.run(planted.model, planted.relations, out=out, held_out=0.4, doses=(8,), draws=1, **quick)
    return out


def report(folder, *more):
    command = ["report", "--out", str(folder), *more]
    return CliRunner().invoke(app, command, catch_exceptions=True)


def paints(svg: str, colour: str) -> bool:
    """Whether an SVG's page or marks have a colour."""
    return f"fill: rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})" in svg


@needs_browser
def test_the_asked_formats_are_written_in_the_asked_theme(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    names = {path.stem for path in (folder / "figures").glob("*.json")}
    assert len(names) >= 5
    result = report(folder, "--images", "--image-format", "svg, png", "--theme", "dark")
    assert result.exit_code == 0, result.output
    assert f"images: {2 * len(names)} in {folder / 'figures'}" in result.output
    written = {p.name for p in (folder / "figures").iterdir() if p.suffix != ".json"}
    assert written == {f"{name}.{kind}" for name in names for kind in ("svg", "png")}
    for name in names:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = (folder / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert paints(svg, DARK) and not paints(svg, BLUE), name


def test_png_and_light_are_what_images_alone_asks_for(finished, tmp_path, monkeypatch):
    folder, asked = shutil.copytree(finished, tmp_path / "run"), []
    monkeypatch.setattr(
        "relation_neurons.report.page.write_images", lambda *_, **how: asked.append(how) or []
    )
    assert report(folder, "--images").exit_code == 0
    assert asked == [{"formats": ["png"], "theme": "light"}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--images", "--image-format", "png,jpeg"), "no image format 'jpeg'"),
        (("--images", "--theme", "drak"), "Did you mean dark"),
        (("--image-format", "pdf"), "add --images"),
        (("--theme", "dark"), "add --images"),
    ],
)
def test_what_is_wrong_shows_before_anything_is_written(finished, more, said):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    result = report(finished, *more)
    assert isinstance(result.exception, UnknownOptionError) and said in str(result.exception)
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
