"""Is a results folder complete, and does it agree with its manifest and with itself?

Every check is a line: what was checked, and what was found wrong. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from relation_neurons.errors import RelationNeuronsError, ResultsError
from relation_neurons.neurons import resolve_doses
from relation_neurons.results.completeness import difference, whole_tables
from relation_neurons.results.results import Results, load_results
from relation_neurons.storage.files import read_json
from relation_neurons.storage.run_folder import CHECKSUMS, checksum, read_checksums

__all__ = ["Check", "verify_folder", "verify_tables"]

_READ = (".html", ".json", ".parquet")
"""Endings of the files that are read from a results folder."""
_UNNOTED = (CHECKSUMS, "engines.json")
"""Files without a checksum: the list itself, and where the tables were computed."""
_LOGITS = 1e-3
"""Margins of the same prompt in different batches may differ by this."""


@dataclass(frozen=True)
class Check:
    """What was checked, and what is wrong with it; nothing where `problem` is empty."""

    what: str
    problem: str = ""

    def __bool__(self) -> bool:
        return not self.problem


def verify_folder(folder: str | Path) -> list[Check]:
    """Recomputes every checksum and checks the tables against the manifest and one another.

    Args:
        folder: a finished run.

    Raises:
        ResultsError: there is no manifest, so it is not a results folder.
    """
    folder = Path(folder)
    read_json(folder / "manifest.json")
    checks = list(_checksums(folder))
    try:
        results = load_results(folder)
    except ResultsError as error:
        return [*checks, Check("tables", str(error))]
    return [*checks, *verify_tables(results)]


def _checksums(folder: Path) -> Iterator[Check]:
    known = read_checksums(folder)
    if not known:
        yield Check("checksums", "the folder has no checksums.json; an older version made it")
    for name, expected in known.items():
        path = folder / name
        if not path.exists():
            yield Check(name, "is missing")
            continue
        try:
            same = checksum(path) == expected
        except RelationNeuronsError as error:
            yield Check(name, str(error))
            continue
        yield Check(name, "" if same else "its bytes are not those that were written")
    there = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    for name in there:
        if known and name.endswith(_READ) and name not in known and name not in _UNNOTED:
            yield Check(name, f"stands in the folder and not in {CHECKSUMS}")


def verify_tables(results: Results) -> list[Check]:
    """Checks tables against the manifest and one another.

    Args:
        results: what `load_results` returns.
    """
    found = []
    for what, problem in (
        ("manifest and ranking: layers and neurons", _neurons(results)),
        ("manifest and prompts: relations", _relations(results)),
        ("prompts and recall: the same prompts", _recalled(results)),
        ("effects: correct is margin above 0", _correct(results.effects)),
        ("recall and effects: the intact model", _intact(results)),
        ("manifest and effects: doses", _doses(results)),
    ):
        found.append(Check(what, problem))
    return [*found, *_counted(results)] if all(found) else found


def _counted(results: Results) -> Iterator[Check]:
    """Checks that every row is there that the options imply, in tables that agree with one another."""
    try:
        for what, problem in whole_tables(results):
            yield Check(what, problem)
    except RelationNeuronsError as error:
        yield Check("manifest and tables: every row", str(error))


def _neurons(results: Results) -> str:
    known, neurons, frame = (
        results.manifest["model"],
        results.ranking.neurons,
        results.ranking.frame,
    )
    if len(neurons) != known["n_neurons"]:
        return f"{len(neurons):,} neurons in the table, {known['n_neurons']:,} in the manifest"
    width = known["n_neurons"] // known["n_layers"]
    inside = frame["layer"].between(0, known["n_layers"] - 1) & frame["neuron"].between(
        0, width - 1
    )
    if not inside.all():
        row = frame[~inside].iloc[0]
        return f"L{row['layer']}N{row['neuron']} is not a neuron of this model"
    twice = frame.duplicated(["score", "relation", "language", "layer", "neuron"])
    return "a neuron is in one ranking twice" if twice.any() else ""


def _relations(results: Results) -> str:
    stated = {(one["name"], one["language"]) for one in results.manifest["relations"]}
    facts = results.prompts[results.prompts["kind"] == "fact"]
    there = set(facts[["relation", "language"]].itertuples(index=False, name=None))
    return difference(there, stated)


def _recalled(results: Results) -> str:
    facts = results.prompts.loc[results.prompts["kind"] == "fact", "prompt_id"]
    asked = results.recall["prompt_id"]
    twice = asked[asked.duplicated()]
    unequal = difference(set(asked), set(facts))
    return unequal or (f"prompt {twice.iloc[0]} is there twice" if len(twice) else "")


def _correct(effects: pd.DataFrame) -> str:
    wrong = (effects["correct"] != (effects["margin"] > 0)) & (effects["margin"].abs() > 1e-6)
    return f"{int(wrong.sum()):,} rows say otherwise" if wrong.any() else ""


def _intact(results: Results) -> str:
    intact = results.effects.drop_duplicates("prompt_id").set_index("prompt_id")["margin_intact"]
    recall = results.recall.drop_duplicates("prompt_id").set_index("prompt_id")["margin"]
    recall = recall.reindex(intact.index)
    apart = float(np.max(np.abs(intact.to_numpy() - recall.to_numpy()), initial=0.0))
    exact = results.manifest["model"]["dtype"] == "float32"
    return f"margins differ by {apart:.2g} logits" if exact and apart > _LOGITS else ""


def _doses(results: Results) -> str:
    stated = set(resolve_doses(results.manifest["options"]["doses"], len(results.ranking.neurons)))
    contrast = results.manifest["options"]["score"]
    there = set(results.effects.loc[results.effects["score"] == contrast, "dose"])
    return difference(there, stated)
