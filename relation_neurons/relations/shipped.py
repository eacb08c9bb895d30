"""The data that comes with the package: relation sets, neutral prompts and text, the example spreadsheet."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from pathlib import Path

from relation_neurons.errors import (
    RelationFormatError,
)
from relation_neurons.relations.formats import (
    RawRelation,
    read_shipped_text,
)

__all__ = [
    "list_shipped",
    "load_background",
    "neutral_text",
    "read_shipped",
    "shipped_files",
    "write_example",
]


def write_example(path: str | Path) -> Path:
    """Writes the example: a spreadsheet of three relations, to run as it is or to edit.

    Its facts are common knowledge, typed in by hand (MIT). Facts and wordings were kept if
    SmolLM2-135M knows them, so that a first heatmap is complete.

    Args:
        path: the file, `.csv`; its folder must exist.

    Raises:
        RelationFormatError: the file exists already, has another suffix, or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".csv":
        raise RelationFormatError(
            f"{path} does not fit the example; expected a file that ends in .csv."
        )
    text = (resources.files("relation_neurons") / "data" / "example.csv").read_text(
        encoding="utf-8"
    )
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except FileExistsError as error:
        raise RelationFormatError(
            f"{path} is there already and may hold your facts; expected a new file. Give another name."
        ) from error
    except OSError as error:
        raise RelationFormatError(f"{path} cannot be written: {error}.") from error
    return path


@cache
def shipped_files() -> dict[str, dict[str, dict[str, str]]]:
    """Returns the file names of shipped relations, by set, relation and language."""
    root = resources.files("relation_neurons") / "data"
    sets: dict[str, dict[str, dict[str, str]]] = {}
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        names = [e.name for e in folder.iterdir()] if folder.is_dir() else []
        stems = sorted(n.removesuffix(".json") for n in names if n.endswith(".json"))
        for stem in stems:
            relation, _, language = stem.partition(".")
            members = sets.setdefault(folder.name, {})
            members.setdefault(relation, {})[language or "en"] = f"{stem}.json"
    return sets


def list_shipped() -> dict[str, tuple[str, ...]]:
    """Returns the shipped sets and the relations in each."""
    return {name: tuple(members) for name, members in shipped_files().items()}


@cache
def load_background(language: str = "en") -> tuple[tuple[str, str], ...]:
    """Returns the neutral prompts of a language as (text, form), empty if it has none."""
    name = "background.json" if language == "en" else f"background.{language}.json"
    path = resources.files("relation_neurons") / "data" / name
    if not re.fullmatch(r"[\w-]+", language) or not path.is_file():
        return ()
    data = json.loads(path.read_text(encoding="utf-8"))
    return tuple((row["text"], row["form"]) for row in data["prompts"])


def read_shipped(name: str, relation: str, language: str) -> list[RawRelation]:
    """Reads one relation of a shipped set in one language."""
    file = shipped_files()[name][relation][language]
    path = resources.files("relation_neurons") / "data" / name / file
    return read_shipped_text(path.read_text("utf-8"), file)


def neutral_text() -> tuple[str, ...]:
    """Returns the paragraphs of plain English that come with the package."""
    path = resources.files("relation_neurons") / "data" / "neutral_text.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))["paragraphs"])
