"""Results: what a run leaves behind, as tables that load again with no model at hand.

A file is written under a temporary name and renamed, so one that exists is whole. There is no
pickle anywhere.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.errors import ResultsError
from relation_neurons.prompts import Prompts
from relation_neurons.ranking import Ranking, left_out_relations

__all__ = [
    "Results",
    "load_results",
    "open_folder",
    "read_json",
    "read_prompts",
    "read_table",
    "require_folder",
    "write_json",
    "write_prompts",
    "write_table",
    "write_text",
]

TABLES = ("prompts", "recall", "ranking", "neurons", "effects")
EXTRAS = ("collateral", "blocks", "null", "stability")
"""Tables that a run may leave out."""


@dataclass(frozen=True)
class Results:
    """A finished run."""

    manifest: dict[str, Any]
    """Every option, the seed, hashes of model and data, package versions."""
    prompts: pd.DataFrame
    recall: pd.DataFrame
    ranking: Ranking
    effects: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)
    """What the report says in figures."""
    folder: Path | None = None
    collateral: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What the swept sets do to neutral text; the extra tables are empty where the run has none."""
    blocks: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Disjoint blocks of neurons, alone and jointly."""
    null: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The largest AP of each relation against permuted labels."""
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    """How much of each top set is found again from other evidence."""

    def __repr__(self) -> str:
        model = self.manifest["model"]["name"]
        where = f" in {self.folder}" if self.folder else ""
        return f"Results({model}: {', '.join(self.ranking.relations)}; {len(self.effects)} effects{where})"

    def _repr_html_(self) -> str:
        from relation_neurons.object_view import results_html

        return results_html(self)


def load_results(folder: str | Path) -> Results:
    """Reads a results folder; no model is needed.

    Raises:
        ResultsError: no such folder, or one that is not finished; the missing file is named.
    """
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json")
    tables = {name: read_table(folder / f"{name}.parquet") for name in TABLES}
    ranking = Ranking(
        tables["ranking"],
        tables["neurons"],
        manifest["options"]["site"],
        left_out_relations(tables["recall"], manifest["options"]["min_known"]),
        by=manifest["options"].get("by", "average_precision"),
    )
    extras = {
        name: read_table(folder / f"{name}.parquet")
        for name in EXTRAS
        if (folder / f"{name}.parquet").exists()
    }
    return Results(
        manifest,
        tables["prompts"],
        tables["recall"],
        ranking,
        tables["effects"],
        read_json(folder / "summary.json"),
        folder,
        **extras,
    )


def require_folder(folder: Path) -> None:
    """Refuses a results folder that can be none, before anything is computed.

    Raises:
        ResultsError: it, or a folder above it, is a file.
    """
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise ResultsError(f"{place} is a file; expected a folder for the results.")
            return


def open_folder(folder: Path, manifest: dict[str, Any]) -> None:
    """Starts a results folder, or finds that it already belongs to this very run (pitfall 19).

    Raises:
        ResultsError: it holds another run (the first difference is named) or other files.
    """
    require_folder(folder)
    path = folder / "manifest.json"
    if path.exists():
        difference = _first_difference(read_json(path), _plain(manifest))
        if difference:
            raise ResultsError(
                f"{folder} holds another run: {difference}. Give another --out, or move that folder away."
            )
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ResultsError(
            f"{folder} is not empty and holds no manifest.json; give an empty folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, manifest)
    except OSError as error:
        raise ResultsError(f"{folder} cannot be written: {error.strerror}.") from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Writes a parquet file whole or not at all."""
    _whole(path, lambda temporary: table.to_parquet(temporary, index=False, compression="zstd"))


def write_text(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    _whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    write_text(path, _dumps(data))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a results folder.

    Raises:
        ResultsError: it is missing or cut off.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        needed = {"options", "model"} if path.name == "manifest.json" else set()
        if not isinstance(data, dict) or not needed <= set(data):
            raise ResultsError(f"{path} is no manifest of a run; expected options and model in it.")
        return data
    except FileNotFoundError as error:
        raise ResultsError(
            f"{path.parent} has no {path.name}; expected a folder that `relation-neurons run` left behind."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{path} is not whole JSON: {error}. Delete it, then run again."
        ) from error
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error.strerror}.") from error


def write_prompts(path: Path, prompts: Prompts) -> None:
    """Writes prompts with their tokens, so that a later stage needs no relation data."""
    table = prompts.frame.assign(
        tokens=[list(t) for t in prompts.tokens],
        answers=[[list(a) for a in answers] for answers in prompts.answers],
        pad_id=prompts.pad_id,
        context=list(prompts.context) or 0,
    )
    write_table(path, table)


def read_prompts(path: Path) -> Prompts:
    """Reads what `write_prompts` wrote."""
    table = read_table(path)
    tokens = tuple(tuple(int(t) for t in row) for row in table["tokens"])
    answers = tuple(tuple(tuple(int(t) for t in a) for a in row) for row in table["answers"])
    context = tuple(int(count) for count in table["context"]) if table["context"].any() else ()
    frame = table.drop(columns=["tokens", "answers", "pad_id", "context"])
    return Prompts(frame, tokens, answers, int(table["pad_id"].iloc[0]), context)


def read_table(path: Path) -> pd.DataFrame:
    """Reads a table of a results folder.

    Raises:
        ResultsError: it is missing or damaged.
    """
    if not path.exists():
        raise ResultsError(
            f"{path.parent} has no {path.name}: the run is not finished. Run the same command again; "
            "it goes on after the files that are there."
        )
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}. Delete it, then run again.") from error


def _whole(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise ResultsError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _dumps(data: dict[str, Any]) -> str:
    return (
        json.dumps(_plain(data), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
        + "\n"
    )


def _plain(value: Any) -> Any:
    """Turns numpy scalars and tuples into JSON's types, and NaN into null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _first_difference(there: Any, here: Any, where: str = "") -> str:
    """Names the first place where two manifests differ, or gives nothing."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted({*there, *here}):
            found = _first_difference(
                there.get(key), here.get(key), f"{where}.{key}" if where else key
            )
            if found:
                return found
        return ""
    return "" if there == here else f"{where} is {there!r} there and {here!r} here"
