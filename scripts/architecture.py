"""Draws the contributor's map from the code: docs/architecture.md and docs/architecture.svg.

    python scripts/architecture.py        (or: make docs-map)

Packages, their modules and what they are for are read from the docstrings; the order of the layers and the
steps of a run stand below, and are checked against the code. Nothing is imported, and boxes are placed by
counting characters, so the files are the same on every machine. A test compares them with the code.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "relation_neurons"
PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.svg"

ROOMS = (
    ("facts and files", "#2f6f4f", ("storage", "relations")),
    ("running a model", "#8a5a00", ("backends", "inference", "models")),
    ("finding neurons", "#7a3e8e", ("activations", "scoring", "ranking")),
    ("ablating them", "#a33a2c", ("ablation", "engines")),
    ("reading results", "#1f5fa8", ("analysis", "results", "plots", "report")),
    ("all together", "#4a4f5a", ("planted", "experiment", "cli")),
)
"""The packages from the lowest to the highest, in groups that share a colour."""
LAYERS = tuple(name for _, _, names in ROOMS for name in names)
"""The packages from the lowest to the highest: each imports only those before it."""


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    name: str
    says: str
    packages: tuple[str, ...]
    functions: tuple[str, ...]
    saved: tuple[str, ...] = ()
    """Tables, without `.parquet`, and files."""
    runs_model: bool = False


STEPS = (
    Step(
        "relations",
        "facts and the templates that ask for them",
        ("relations",),
        ("load_relations", "check_relations"),
        ("manifest.json",),
    ),
    Step(
        "prompts",
        "templates with subjects in them; a detection and a held-out side",
        ("relations",),
        ("make_prompts",),
        ("prompts",),
    ),
    Step(
        "recall",
        "which facts the intact model knows",
        ("inference",),
        ("measure_recall",),
        ("recall",),
        runs_model=True,
    ),
    Step(
        "activations",
        "one pooled value per neuron and prompt; not saved",
        ("activations",),
        ("collect_activations",),
        runs_model=True,
    ),
    Step(
        "ranking",
        "the neurons that detect each relation, and how far to trust them",
        ("scoring", "ranking"),
        ("rank_neurons",),
        ("ranking", "neurons", "null", "stability", "overlap"),
    ),
    Step(
        "ablation sweep",
        "ranked sets and matched controls, dose by dose",
        ("ablation", "engines"),
        ("ablation_sweep", "collateral_damage"),
        ("collateral", "home_draws", "blocks"),
        runs_model=True,
    ),
    Step(
        "effects",
        "a row per ablated set, dose, draw and held-out prompt",
        ("results",),
        ("load_results",),
        ("effects",),
    ),
    Step(
        "analysis",
        "cumulativity, versatility, interference: tables",
        ("analysis",),
        ("dose_curves", "overlap_matrix", "interference_matrix"),
    ),
    Step(
        "plots and report",
        "figures, and one page that opens offline",
        ("plots", "report"),
        ("dose_curve", "overlap", "interference"),
        ("summary.json", "report.html", "figures/"),
    ),
)
"""What a run does, in this order."""

CHANGES = (
    ("a file format for relations", ("relations/formats.py", "relations/loading.py")),
    ("a family of models", ("backends/hooked_transformer_configs.py", "models/registry.py")),
    ("a criterion to rank by", ("ranking/criteria.py",)),
    ("a site or a weight of a neuron", ("backends/neuron_sites.py",)),
    ("a kind of control", ("ablation/sets.py",)),
    ("a table that a run saves", ("results/plan.py", "results/completeness.py")),
    ("a number read off the effects", ("analysis/",)),
    ("a figure", ("plots/",)),
    ("a sentence or table of the report", ("report/sentences.py", "report/tables.py")),
    ("an option of a run", ("results/options.py", "cli/options.py", "cli/run.py")),
    ("a command", ("cli/app.py",)),
)
"""Where a change begins."""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    found = re.match(r".+?[.?!](?=\s|$)", paragraph)
    if not found:
        raise SystemExit(f"{path} needs a docstring that begins with a sentence")
    return found[0]


def modules(package: str) -> list[Path]:
    """The modules of a package, by name; those beside the packages for ''."""
    return sorted(p for p in (PACKAGE / package).glob("*.py") if not p.stem.startswith("__"))


def saved_tables() -> set[str]:
    """The tables of a run, as relation_neurons/results/results.py lists them."""
    path = PACKAGE / "results" / "results.py"
    tables: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("TABLES", "EXTRAS"):
            tables |= set(ast.literal_eval(node.value))
    return tables


def check() -> None:
    """Refuses a map that the code does not have: packages, functions, saved tables, files."""
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    if found != set(LAYERS):
        raise SystemExit(f"ROOMS names {sorted(LAYERS)}; the packages are {sorted(found)}")
    for step in STEPS:
        defined = {
            node.name
            for package in step.packages
            for path in modules(package)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
        }
        if missing := set(step.functions) - defined:
            raise SystemExit(f"step {step.name!r}: {sorted(missing)} not in {step.packages}")
    drawn = {name for step in STEPS for name in step.saved if name.isidentifier()}
    if drawn != saved_tables():
        raise SystemExit(f"STEPS save {sorted(drawn)}; a run saves {sorted(saved_tables())}")
    for what, files in CHANGES:
        for name in files:
            if not (PACKAGE / name).exists():
                raise SystemExit(f"CHANGES, {what}: relation_neurons/{name} is not there")


# The picture. Sizes are in pixels; widths are counted in characters of the widest usual font.
WIDTH, MARGIN = 1000, 20
INK, SOFT, LINE = "#1c2330", "#525b6b", "#c9ced8"
MODEL, PLAIN, FILE = "#fdeecb", "#eef3fa", "#ffffff"
MONO = 7.4
"""Width of a character of the 12 pixel fixed-width font."""


def text(x: float, y: float, words: str, kind: str = "", **more: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    classes = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{classes}{attributes}>{escape(words, quote=False)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{min(6, height / 4):g}"'
        f' fill="{fill}" stroke="{LINE}"/>'
    )


def arrow(path: str) -> str:
    return f'<path d="{path}" class="arrow" marker-end="url(#head)"/>'


def file_name(name: str) -> str:
    return f"{name}.parquet" if name.isidentifier() else name


STEP_WIDTH, STEP_GAP, STEP_HEIGHT, FILE_LINE = 170, 27.5, 128, 17


def draw_step(step: Step, x: float, y: float, files: int) -> Iterator[str]:
    """A step of a run: its name, what it is, its functions, and below it the files that are saved."""
    yield box(x, y, STEP_WIDTH, STEP_HEIGHT, MODEL if step.runs_model else PLAIN)
    yield text(x + 10, y + 22, step.name, "name")
    for row, line in enumerate(wrap(step.says, 26)):
        yield text(x + 10, y + 40 + 15 * row, line, "small")
    for row, name in enumerate(step.functions):
        below = y + STEP_HEIGHT - 9 - 15 * (len(step.functions) - 1 - row)
        yield text(x + 10, below, name, "mono")
    if step.saved:
        yield box(x, y + STEP_HEIGHT + 6, STEP_WIDTH, 8 + FILE_LINE * files, FILE)
        for row, name in enumerate(step.saved):
            yield text(
                x + 10, y + STEP_HEIGHT + 6 + 16 + FILE_LINE * row, file_name(name), "mono soft"
            )


def draw_flow(y: float) -> tuple[list[str], float]:
    """The steps of a run in two rows, joined by arrows."""
    parts = [
        text(MARGIN, y, "How data flows in a run", "title"),
        box(MARGIN, y + 14, 14, 14, MODEL),
        text(MARGIN + 21, y + 26, "runs the model", "small"),
        box(MARGIN + 130, y + 14, 14, 14, PLAIN),
        text(MARGIN + 151, y + 26, "takes tables, gives tables or figures", "small"),
        box(MARGIN + 385, y + 14, 14, 14, FILE),
        text(MARGIN + 406, y + 26, "is saved in the results folder", "small"),
    ]
    y += 44
    rows = (STEPS[:5], STEPS[5:])
    for number, row in enumerate(rows):
        files = max(len(step.saved) for step in row)
        for place, step in enumerate(row):
            x = MARGIN + place * (STEP_WIDTH + STEP_GAP)
            parts += draw_step(step, x, y, len(step.saved))
            if place + 1 < len(row):
                start, middle = x + STEP_WIDTH + 3, y + STEP_HEIGHT / 2
                parts.append(arrow(f"M{start:g} {middle:g}h{STEP_GAP - 8:g}"))
        bottom = y + STEP_HEIGHT + 6 + 8 + FILE_LINE * files
        if number == 0:
            centre = [MARGIN + STEP_WIDTH / 2 + i * (STEP_WIDTH + STEP_GAP) for i in range(5)]
            turn, below = bottom + 16, bottom + 34
            parts += [
                arrow(f"M{centre[4]:g} {bottom + 3:g}V{turn:g}H{centre[0]:g}V{below:g}"),
                arrow(f"M{centre[2]:g} {turn:g}V{below:g}"),
                text(centre[2] + 10, turn + 14, "overlap of top sets", "small"),
            ]
            bottom += 38
        y = bottom
    return parts, y


LABEL, CHIP, SENTENCE = 128, 24, 108


def draw_layer(
    name: str, room: str, colour: str, sentence: str, y: float
) -> tuple[list[str], float]:
    """A package: its name, its sentence and its modules."""
    left, right = MARGIN + LABEL, WIDTH - MARGIN - 10
    lines = wrap(sentence.replace("`", ""), SENTENCE)
    parts = [text(left, y + 21 + 17 * row, line, "sentence") for row, line in enumerate(lines)]
    top, x = y + 13 + 17 * len(lines), left
    for path in modules(name):
        wide = MONO * len(path.stem) + 14
        if x + wide > right:
            x, top = left, top + CHIP + 4
        parts += [
            box(x, top, wide, CHIP - 2, "#ffffff"),
            text(x + wide / 2, top + 15.5, path.stem, "mono", text_anchor="middle"),
        ]
        x += wide + 6
    height = top + CHIP + 6 - y
    frame = [
        box(MARGIN, y, WIDTH - 2 * MARGIN, height, "#f7f8fa"),
        f'<rect x="{MARGIN}" y="{y:g}" width="6" height="{height:g}" rx="3" fill="{colour}"/>',
        text(MARGIN + 18, y + 22, name or "root", "name", fill=colour),
        text(MARGIN + 18, y + 41, room, "small"),
    ]
    return frame + parts, y + height + 6


def draw_layers(y: float) -> tuple[list[str], float]:
    """The packages, the highest on top, and the modules that all of them may import."""
    parts = [
        text(MARGIN, y, "Where things are: relation_neurons/", "title"),
        text(
            MARGIN,
            y + 22,
            "Each package imports only from packages drawn below it, and each name from the module that"
            " defines it.",
            "small",
        ),
    ]
    y += 36
    for room, colour, names in reversed(ROOMS):
        for name in reversed(names):
            sentence = first_sentence(PACKAGE / name / "__init__.py")
            more, y = draw_layer(name, room, colour, sentence, y)
            parts += more
    more, y = draw_layer("", "every layer", INK, "Modules that every package may import.", y)
    return parts + more, y


STYLE = f"""
  text {{ font: 13px "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; fill: {INK} }}
  .title {{ font-size: 19px; font-weight: 600 }}
  .name {{ font-size: 15px; font-weight: 600 }}
  .small {{ font-size: 12.5px; fill: {SOFT} }}
  .sentence {{ font-size: 13.5px }}
  .mono {{ font: 12px "SFMono-Regular", Menlo, Consolas, "Liberation Mono", "DejaVu Sans Mono", monospace }}
  .soft {{ fill: {SOFT} }}
  .arrow {{ fill: none; stroke: {SOFT}; stroke-width: 1.6 }}
"""


def picture() -> str:
    """The SVG."""
    flow, below = draw_flow(36)
    layers, bottom = draw_layers(below + 50)
    height = bottom + 14
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
            f' height="{height:g}" role="img" aria-labelledby="about">',
            '<title id="about">How data flows in a run, and the packages in layers</title>',
            f"<style>{STYLE}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
            f' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{SOFT}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>',
            *flow,
            *layers,
            "</svg>",
            "",
        ]
    )


def page() -> str:
    """The Markdown."""
    lines = [
        "# Where things are",
        "",
        "<!-- Made by scripts/architecture.py (make docs-map); a test compares it with the code. -->",
        "",
        "A map for those who change the code: what a run does in which order, and which package does it.",
        "`make docs-map` draws it again from the docstrings.",
        "",
        "![How data flows in a run, and the packages in layers](architecture.svg)",
        "",
        "## A run, step by step",
        "",
        "Only `models` loads a model; only the steps marked *model* run one. Everything after *effects* takes"
        " tables and gives tables or figures, so a finished run can be explored with no model.",
        "",
        "| step | what it is | package | functions | saved | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for step in STEPS:
        cells = (
            step.name,
            step.says,
            *(
                ", ".join(f"`{name}`" for name in names)
                for names in (step.packages, step.functions, map(file_name, step.saved))
            ),
            "model" if step.runs_model else "",
        )
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    lines += [
        "",
        "## Where a change begins",
        "",
        "| to add | begin in `relation_neurons/` |",
        "| --- | --- |",
    ]
    for what, files in CHANGES:
        lines.append(f"| {what} | {', '.join(f'`{name}`' for name in files)} |")
    lines += [
        "",
        "Tests lie in folders with the packages' names: those in `tests/unit/` need no model, those in"
        " `tests/integration/` run tiny ones. `tests/helpers/` holds the tiny models and made-up tables,"
        " `tests/programs/` what a test starts as a process. `tests/unit/test_layers.py` keeps the layers.",
        "",
        "## Packages and modules",
        "",
        "From the lowest to the highest.",
        "",
        "**Modules in the root**, which every package may import:",
        "",
        *module_lines(""),
    ]
    for name in LAYERS:
        lines += [
            "",
            f"### {name}",
            "",
            first_sentence(PACKAGE / name / "__init__.py"),
            "",
            *module_lines(name),
        ]
    return "\n".join(lines) + "\n"


def module_lines(package: str) -> list[str]:
    return [f"- `{path.stem}`: {first_sentence(path)}" for path in modules(package)]


def main() -> None:
    """Writes both files."""
    check()
    PAGE.write_text(page(), encoding="utf-8")
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
