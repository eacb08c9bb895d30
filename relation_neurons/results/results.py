"""What a run leaves behind, as tables that load again without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.formatting import number
from relation_neurons.notebook_html import ROWS, table_view
from relation_neurons.ranking.known import left_out_relations
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.prompts import Prompts, prompts_of, prompts_table
from relation_neurons.relations.relation import ALL_RELATIONS
from relation_neurons.storage.files import read_json, read_table, write_table

__all__ = ["Results", "load_results", "read_prompts", "write_prompts"]

TABLES = ("prompts", "recall", "ranking", "neurons", "effects")
EXTRAS = ("collateral", "home_draws", "blocks", "null", "stability", "overlap")
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
    """The numbers of the report."""
    folder: Path | None = None
    collateral: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What the swept sets do to neutral text; the extra tables are empty where the run has none."""
    home_draws: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Control draws that were judged on their relation's own facts alone, until its answer was clear."""
    blocks: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Disjoint blocks of neurons, alone and jointly."""
    null: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The largest AP of each relation against permuted labels."""
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    """How much of each top set is found again from other evidence."""
    overlap: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The neurons that top sets share under dealt roles, by chance; the ranking carries it, too."""

    def __repr__(self) -> str:
        model = self.manifest["model"]["name"]
        where = f" in {self.folder}" if self.folder else ""
        return f"Results({model}: {', '.join(self.ranking.relations)}; {len(self.effects)} effects{where})"

    def _repr_html_(self) -> str:
        """A finished run: the effect at home, elsewhere and of the control."""
        model = self.manifest["model"]
        summary = self.summary
        table = pd.DataFrame(
            summary.get("headline") or [],
            columns=["relation", "what", "effect", "low", "high", "n"],
        )
        note = f"{len(self.effects):,} rows of effects"
        if "dose" in summary:
            note += f"; {summary['dose']:,} neurons ablated, change in the share of correct answers"
        note += f". In {self.folder}." if self.folder else "."
        rows = []
        names = sorted(dict.fromkeys(table["relation"]), key=lambda name: name == ALL_RELATIONS)
        for name in names:
            cells = table[table["relation"] == name].set_index("what")
            home = cells.loc["home"]
            shown = f"{number(home.effect)} ({number(home.low)} to {number(home.high)})"
            others = (
                number(cells["effect"].get(what)) for what in ("elsewhere", "control_contribution")
            )
            rows.append((name, shown, *others))
        head = ("Relation", "Home (95% interval)", "Elsewhere", "Control")
        return table_view(f"A run of {model['name']}", note, (head, rows), shown=4 * ROWS)


def load_results(folder: str | Path) -> Results:
    """Reads a results folder; no model is needed.

    Raises:
        ResultsError: no such folder, or one that is not finished; the missing file is named.
    """
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json")
    tables = {name: read_table(folder / f"{name}.parquet") for name in TABLES}
    extras = {
        name: read_table(folder / f"{name}.parquet")
        for name in EXTRAS
        if (folder / f"{name}.parquet").exists()
    }
    ranking = Ranking(
        tables["ranking"],
        tables["neurons"],
        manifest["options"]["site"],
        left_out_relations(tables["recall"], manifest["options"]["min_known"]),
        by=manifest["options"].get("by", "average_precision"),
        shots=manifest["options"].get("shots", 0) > 0,
        overlap_null=extras.get("overlap"),
    )
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


def write_prompts(path: Path, prompts: Prompts) -> None:
    """Writes prompts with their tokens, so that a later stage needs no relation data."""
    write_table(path, prompts_table(prompts))


def read_prompts(path: Path) -> Prompts:
    """Reads what `write_prompts` wrote."""
    return prompts_of(read_table(path))
