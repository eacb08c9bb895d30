"""Compares what the two versions of TransformerLens give on SmolLM2.

Run it once in either environment with the same folder; the second run prints the comparison.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import relation_neurons as rn
from relation_neurons.backends.installed import BACKEND

NAMES = ["city_country", "country_capital", "country_continent"]
DOSE = 92
BACKENDS = ("HookedTransformer", "TransformerBridge")


def measure(names: list[str]) -> dict[str, pd.DataFrame]:
    """Recall, the top sets under both contrasts, and a sweep at one dose with one control draw."""
    model = rn.load_model("smollm2-135m", device="cpu")
    relations = rn.load_relations("demo", names=names)
    prompts = rn.make_prompts(relations, model.tokenizer, held_out=12, nonsense=0, seed=0)
    recall = rn.measure_recall(model, prompts)
    ranking = rn.rank_neurons(rn.collect_activations(model, prompts.detection), recall, min_known=5)
    top = pd.concat(
        ranking.top(name, DOSE, contrast=contrast)[["score", "relation", "layer", "neuron"]]
        for name in names
        for contrast in ("specific", "background")
    )
    effects = rn.ablation_sweep(model, prompts.held_out, ranking, (DOSE,), control_draws=1, seed=0)
    return {"recall": recall, "top": top, "effects": effects}


def compare(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> list[str]:
    """What is the same, in words and numbers."""
    lines = []
    for (contrast, relation), mine in one["top"].groupby(["score", "relation"], observed=True):
        theirs = other["top"].query("score == @contrast and relation == @relation")
        shared = mine.merge(theirs, on=["layer", "neuron"])
        lines.append(f"{relation}, {contrast}: {len(shared)} of {len(mine)} neurons are the same")
    for name, answered in (("recall", "known"), ("effects", "correct")):
        a, b = one[name], other[name]
        clear = a["margin"].abs() > 1e-3
        differs = np.asarray(a[answered]) != np.asarray(b[answered])
        margin, logprob = (
            np.abs(a[column].to_numpy() - b[column].to_numpy()).max()
            for column in ("margin", "logprob")
        )
        lines.append(
            f"{name}: {len(a)} rows, {int(clear.sum())} with a clear margin; "
            f"{int((differs & clear).sum())} of these and {int(differs.sum())} of all differ in correctness; "
            f"margins by up to {margin:.1e}, log-probabilities by up to {logprob:.1e}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--names", default=",".join(NAMES))
    given = parser.parse_args()
    for name, table in measure(given.names.split(",")).items():
        (given.folder / BACKEND.name).mkdir(parents=True, exist_ok=True)
        table.to_parquet(given.folder / BACKEND.name / f"{name}.parquet")
    if all((given.folder / backend / "effects.parquet").is_file() for backend in BACKENDS):
        both = (
            {
                name: pd.read_parquet(given.folder / backend / f"{name}.parquet")
                for name in ("recall", "top", "effects")
            }
            for backend in BACKENDS
        )
        print("\n".join(compare(*both)))


if __name__ == "__main__":
    main()
