"""Every notebook is an essay with its outputs, runs from top to bottom, and still says what it said."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from helpers.paths import ROOT

FOLDER = ROOT / "notebooks"
NOTEBOOKS = [
    FOLDER / f"{name}.ipynb"
    for name in (
        "01_hooks_and_neurons",
        "02_finding_relation_neurons",
        "03_cumulativity",
        "04_versatility",
        "05_interference",
        "06_planted_truth",
        "07_your_own_relation",
        "08_llama2_paper",
    )
]
"""Those that are shipped; whoever works in the folder leaves others beside them."""
LARGEST = 400_000
"""Bytes of a notebook with its outputs; plotly.js alone would be ten times as much."""

PLOTLY = "application/vnd.plotly.v1+json"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def headline(notebook: nbformat.NotebookNode) -> str:
    """What the cell tagged `headline` shows."""
    (cell,) = [c for c in notebook.cells if "headline" in c.metadata.get("tags", [])]
    (output,) = cell.outputs
    return output["data"]["text/plain"]


def test_the_documentation_lists_those_that_are_shipped():
    page = (FOLDER.parent / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == [p.stem for p in NOTEBOOKS]


def ruff(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ruff", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_shipped_notebooks_are_linted_and_formatted():
    """By name, as the folder is left out of what ruff finds by itself."""
    for arguments in (("check", "--no-cache"), ("format", "--check", "--no-cache")):
        done = ruff(*arguments, *NOTEBOOKS, cwd=FOLDER.parent)
        assert done.returncode == 0, done.stdout + done.stderr


def test_files_that_a_user_leaves_in_results_or_notebooks_are_not_linted(tmp_path):
    """And one in the package is, under the same settings."""
    shutil.copy(FOLDER.parent / "pyproject.toml", tmp_path)
    scratch = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os,sys")])
    for folder in ("results", "results/mine", "notebooks", "relation_neurons"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scratch.py").write_text("import os,sys\n")
        nbformat.write(scratch, tmp_path / folder / "scratch.ipynb")
    done = ruff("check", "--no-cache", "--output-format", "json", ".", cwd=tmp_path)
    found = {Path(one["filename"]).relative_to(tmp_path) for one in json.loads(done.stdout)}
    assert {path.parts[0] for path in found} == {"relation_neurons"}
    assert {path.suffix for path in found} == {".py", ".ipynb"}


@each
def test_a_notebook_is_an_essay_with_its_outputs(path):
    notebook = read(path)
    cells = code(notebook)
    assert all(cell.execution_count for cell in cells)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        assert not [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, defined)]
        assert not [output for output in cell.outputs if output.output_type == "error"]
    text = prose(notebook)
    for part in ("**Question.**", "How to read it", "cannot show", "<details>", "../docs/api/"):
        assert part in text, f"{path.name} lacks {part}"
    assert text.count("<details>") == text.count("</details>") >= 3
    assert not re.search(r"[^\n]\n</?details>", text), (
        "an export folds an answer between blank lines only"
    )
    assert path.stat().st_size < LARGEST


@each
def test_the_text_after_each_figure_says_how_to_read_it(path):
    cells = read(path).cells
    for number, cell in enumerate(cells):
        if any(PLOTLY in output.get("data", {}) for output in cell.get("outputs", [])):
            after = next((c.source for c in cells[number:] if c.cell_type == "markdown"), "")
            assert "**How to read it.**" in after, f"{path.name}: the figure of cell {number}"


@each
def test_links_lead_somewhere_and_paths_are_not_those_of_a_machine(path):
    notebook = read(path)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose(notebook)):
        assert (FOLDER / target).exists(), f"{path.name}: {target}"
    shown = nbformat.writes(notebook)
    for place in (tempfile.gettempdir(), str(Path.home()), str(FOLDER.parent)):
        assert f"{place}/" not in shown, f"{path.name} shows {place}"


@each
def test_a_notebook_runs_and_its_headline_is_the_committed_one(path, monkeypatch):
    """Slow where a notebook loads a real model; each must run, or it teaches an error."""
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    monkeypatch.setenv("RELATION_NEURONS_QUIET", "1")
    committed = headline(read(path))
    notebook = read(path)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute()  # raises with the cell and its traceback
    assert all(cell.execution_count for cell in code(notebook))
    assert same(headline(notebook), committed), f"{headline(notebook)}\nnot\n{committed}"


def same(found: str, expected: str) -> bool:
    """The same words, and numbers within a twentieth: machines differ in near ties."""
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    if re.sub(number, "#", found) != re.sub(number, "#", expected):
        return False
    pairs = zip(re.findall(number, found), re.findall(number, expected), strict=True)
    return all(abs(float(a) - float(b)) <= max(0.02, abs(float(b)) / 20) for a, b in pairs)


def test_a_changed_number_is_seen():
    assert same("{'effect': -0.53, 'of': 40}", "{'effect': -0.54, 'of': 41}")
    assert not same("{'effect': -0.53}", "{'effect': -0.43}")
    assert not same("{'effect': -0.53}", "{'effects': -0.53}")
