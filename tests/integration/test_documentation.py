"""The documentation: it builds with no network, its code runs, its commands and options exist."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest
import typer

import relation_neurons as rn
from helpers.paths import ROOT
from relation_neurons.cli.app import app
from relation_neurons.relations.selection import draw_facts

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
COMMANDS = typer.main.get_command(app)


def blocks(page: Path, language: str) -> list[str]:
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def shell_lines() -> list[tuple[str, str]]:
    """Every command in a block of no language, with its page; continued lines are joined."""
    found = []
    for page in PAGES:
        for text in blocks(page, ""):
            if "relation,subject,object" in text:
                continue
            for line in text.replace("\\\n", " ").splitlines():
                if line.strip() and not line.startswith("#"):
                    found.append((str(page.relative_to(ROOT)), line.split(" #")[0].strip()))
    return found


def parse(words: list[str]) -> None:
    """Has the command line read a command without running it; a wrong option raises."""
    context = COMMANDS.make_context("relation-neurons", [], resilient_parsing=True)
    name, command, rest = COMMANDS.resolve_command(context, words)
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        name, command, rest = command.resolve_command(context, rest)
    command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("page", "line"), shell_lines())
def test_every_command_exists_and_takes_its_options(page, line):
    words = shlex.split(line)
    program = Path(words[0]).name
    if program == "relation-neurons":
        parse(words[1:])
    elif program == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert words[1] in targets
    elif program == "python" and words[1].startswith("scripts/"):
        assert (ROOT / words[1]).exists()
    else:
        assert program in {"python3", "pip", "source", "jupyter"}, f"{page}: {line}"


def test_a_wrong_option_is_seen():
    with pytest.raises(Exception, match="No such option"):
        parse(["run", "--out", "x", "--dosis", "10"])


def test_every_option_in_the_text_exists():
    options = {"--help", "--no-deps"}
    waiting = [COMMANDS]
    while waiting:
        command = waiting.pop()
        waiting += list(getattr(command, "commands", {}).values())
        options |= {name for item in command.params for name in item.opts}
    for page in PAGES:
        for span in re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))):
            unknown = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", span)) - options
            if "scripts/" not in span:
                assert not unknown, f"{page.name}: {unknown}"


@each_page
def test_its_data_can_be_read(page, tmp_path):
    for text in blocks(page, ""):
        if text.startswith("relation,subject,object"):
            path = tmp_path / "facts.csv"
            path.write_text(text, encoding="utf-8")
            for relation in rn.load_relations(path):
                assert {t.side for t in relation.templates} == {"detection", "held_out"}
    for text in blocks(page, "json"):
        name = json.loads(text)["name"]
        path = tmp_path / f"{name}.json"
        path.write_text(text, encoding="utf-8")
        assert [relation.name for relation in rn.load_relations(path)] == [name]


@pytest.fixture(scope="module")
def smollm2():
    return rn.load_model("smollm2-135m")


@pytest.fixture
def small(smollm2, monkeypatch, tmp_path):
    """The pages' code on the real model, with fewer facts and without a browser."""
    load_model, load_relations = rn.load_model, rn.load_relations
    path = tmp_path / "my_facts.csv"
    COMMANDS(["relations", "example", "--out", str(path)], standalone_mode=False)

    def few(source, **options):
        if source == "my_facts.csv":
            return load_relations(path)
        if source != "demo":
            return load_relations(source, **options)
        chosen = load_relations("demo", names=["word_opposite", "country_capital"])
        return [draw_facts(relation, 32) for relation in chosen]

    monkeypatch.setattr(
        rn, "load_model", lambda name, **o: smollm2 if name == "smollm2-135m" else load_model(name)
    )
    monkeypatch.setattr(rn, "load_relations", few)
    monkeypatch.setattr(go.Figure, "show", drawn)
    monkeypatch.setattr(go.Figure, "write_html", lambda figure, name: drawn(figure))
    monkeypatch.chdir(ROOT)


def drawn(figure: go.Figure) -> str:
    """Draws a figure of a page, which must be whole."""
    assert "Not shown" not in (figure.layout.title.subtitle.text or "")
    return figure.to_json()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if blocks(page, "python")],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_its_code_runs_and_prints_what_it_says(page):
    """The blocks of a page run in order and share their names, as a reader would run them."""
    names: dict = {}
    for text in blocks(page, "python"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, str(page.relative_to(ROOT)), "exec"), names)
        said = [
            c
            for c in re.findall(r"^ *print\(.*\)  # (.+)$", text, flags=re.MULTILINE)
            if "…" not in c
        ]
        expected = [line for comment in said for line in comment.split(" | ")]
        if expected:
            assert printed.getvalue().splitlines() == expected, text


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_builds_and_asks_the_network_for_nothing(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?([^\"'\s>]+)", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=[\"']?([^\"'\s>]+)", text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s+)[\"']?(https?:)?//", sheet.read_text("utf-8")), (
            sheet
        )


def test_every_public_name_is_in_the_api(site):
    anchors = " ".join(page.read_text("utf-8") for page in (site / "api").glob("*.html"))
    documented = {
        full.rsplit(".", 1)[-1] for full in re.findall(r'id="(relation_neurons\.[\w.]+)"', anchors)
    }
    missing = set(rn.__all__) - {"errors", "plots"} - documented
    assert not missing
    assert set(rn.plots.__all__) <= documented


@each_page
def test_a_test_that_a_page_names_is_there(page):
    files = {str(path.relative_to(ROOT)): path for path in (ROOT / "tests").rglob("*.py")}
    defined = "\n".join(path.read_text(encoding="utf-8") for path in files.values())
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b([\w/]*test_\w+\.py)`", text):
        assert any(f"/{path}".endswith(f"/{name}") for path in files), name
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in defined, name
