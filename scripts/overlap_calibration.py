"""Overlap on noise: do pairs share what the deals expect, and how many does p call a finding?

Activations are noise, so nothing that relations share is more than chance. Eight relations of 16 facts in
two wordings and 200 neutral prompts are ranked among 4,000 neurons, and judged by `overlap_matrix` with
the deals of `overlap_null`, by `overlap_total`, and by what stood in their place: dose^2 / neurons and the
hypergeometric distribution, which suppose that top sets are drawn at random.

- independent: every prompt and neuron is a draw of its own
- correlated: half of the variance of neurons comes from 20 directions that they share
- facts: as correlated, and half of the variance of a prompt is that of its fact (what a neutral prompt says
  comes in two wordings, too)
- languages: as facts, four relations in two languages, whose translations are alike, too

Usage: python scripts/overlap_calibration.py [--runs 120] [--out docs/overlap_calibration.csv]
       [--page docs/calibration.md]
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

import relation_neurons as rn
from relation_neurons.activations.table import ActivationTable

NOISES = ("independent", "correlated", "facts", "languages")
CONTRASTS = ("background", "specific")
FORMS = ("statement", "question")
RELATIONS, FACTS, WORDINGS, NEUTRAL = 8, 16, len(FORMS), 200
DIRECTIONS = 20
NEURONS, DOSE, DEALS = 4_000, 100, 39


def noise_table(
    noise: str,
    rng: np.random.Generator,
    *,
    relations: int = RELATIONS,
    facts: int = FACTS,
    neutral: int = NEUTRAL,
    neurons: int = NEURONS,
) -> tuple[ActivationTable, pd.DataFrame]:
    """Prompts of relations that differ in nothing, and the recall of a model that knows all of them."""
    languages = ("en", "de") if noise == "languages" else ("en",)
    names = [f"relation{i}" for i in range(relations // len(languages))]
    rows = [
        ("fact", name, language, f"fact{i}", FORMS[k])
        for language in languages
        for name in names
        for i in range(facts)
        for k in range(WORDINGS)
    ]
    rows += [
        ("background", "", language, str(i // WORDINGS), FORMS[i % WORDINGS])
        for language in languages
        for i in range(neutral)
    ]
    prompts = pd.DataFrame(rows, columns=["kind", "relation", "language", "fact", "form"])
    prompts = prompts.assign(prompt_id=range(len(rows)), subject=prompts["fact"], side="detection")
    values = _normal(rng, len(rows), neurons)
    if noise != "independent":
        values += (
            _normal(rng, len(rows), DIRECTIONS)
            @ _normal(rng, DIRECTIONS, neurons)
            / DIRECTIONS**0.5
        )
    if noise in ("facts", "languages"):
        fact = prompts.groupby(["kind", "relation", "fact"]).ngroup().to_numpy()
        values += 2**0.5 * _normal(rng, fact.max() + 1, neurons)[fact]
    prompts.loc[prompts["kind"] == "background", "fact"] = ""  # as in a run
    asked = prompts.loc[prompts["kind"] == "fact"].assign(known=True)
    held_out = asked.assign(side="held_out", prompt_id=asked["prompt_id"] + len(rows))
    still = torch.ones(1, neurons)
    table = ActivationTable(
        torch.from_numpy(values)[:, None], prompts, still, still, still, "mean", "post"
    )
    return table, pd.concat([asked, held_out], ignore_index=True)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def judged(
    noise: str, seed: int, *, dose: int = DOSE, deals: int = DEALS, **sizes: int
) -> pd.DataFrame:
    """One run on noise: a row for each pair, with the test over all pairs of its contrast."""
    table, recall = noise_table(noise, np.random.default_rng([seed, NOISES.index(noise)]), **sizes)
    ranking = rn.rank_neurons(table, recall, keep=dose, contrasts=CONTRASTS)
    null = rn.overlap_null(table, recall, keep=dose, deals=deals, seed=seed)
    parts = []
    for contrast in CONTRASTS:
        cells = rn.overlap_matrix(ranking, dose=dose, contrast=contrast, null=null)
        one, other = ["relation", "language"], ["other", "other_language"]
        names = [cells[part].agg("/".join, axis=1) for part in (one, other)]
        cells = cells[names[0] < names[1]]
        formula = stats.hypergeom.sf(cells["shared"] - 1, len(ranking.neurons), dose, dose)
        same = cells["relation"] == cells["other"]
        parts.append(
            cells.assign(
                pairs=np.where(same, "a relation in two languages", "two relations"),
                noise=noise,
                seed=seed,
                p_total=cells.attrs["p_total"],
                formula=dose * dose / len(ranking.neurons),
                formula_p=formula,
            )
        )
    return pd.concat(parts, ignore_index=True)


def summarised(cells: pd.DataFrame) -> pd.DataFrame:
    """Averages over runs: shared and expected neurons of a pair, and how often p is at most 0.05."""
    rows = []
    keys = ["score", "noise", "pairs"]
    for (contrast, noise, pairs), part in cells.groupby(keys, sort=False):
        each = part.groupby("seed")
        rows.append(
            {
                "contrast": contrast,
                "noise": noise,
                "pairs": pairs,
                "runs": each.ngroups,
                "n": len(part),
                "shared": part["shared"].mean(),
                "expected": part["expected"].mean(),
                # of the difference, whose runs are independent and whose pairs are not
                "error": each.apply(lambda run: (run["shared"] - run["expected"]).mean()).sem(),
                "share": (part["p_value"] <= 0.05).mean(),
                "total": (each["p_total"].first() <= 0.05).mean(),
                "formula": part["formula"].mean(),
                "formula_share": (part["formula_p"] <= 0.05).mean(),
            }
        )
    return pd.DataFrame(rows)


def _one(asked: tuple[str, int]) -> pd.DataFrame:
    torch.set_num_threads(1)
    return judged(*asked)


def measured(runs: int) -> pd.DataFrame:
    """Every noise, so many runs each."""
    asked = [(noise, seed) for noise in NOISES for seed in range(runs)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = []
        for done, one in enumerate(pool.map(_one, asked), 1):
            found.append(one)
            if done % 20 == 0:
                print(f"{done} of {len(asked)}", file=sys.stderr, flush=True)
    cells = summarised(pd.concat(found, ignore_index=True))
    return cells.sort_values("contrast", kind="stable").reset_index(drop=True)


def table_of(path: Path) -> str:
    """The page's table."""
    head = [
        "contrast",
        "noise",
        "pairs of",
        "shared",
        "expected",
        "pairs at p ≤ 0.05",
        "runs at p ≤ 0.05",
    ]
    head += ["dose² / neurons", "pairs at p ≤ 0.05 by it"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    for row in pd.read_csv(path).itertuples():
        total = f"{row.total:.1%}"
        lines.append(
            f"| `{row.contrast}` | {row.noise} | {row.pairs} | {row.shared:.3f} | {row.expected:.3f} | "
            f"{row.share:.1%} | {total} | {row.formula:.2f} | {row.formula_share:.1%} |"
        )
    return "\n".join(lines)


SECTION = """## Overlap

Made by `python scripts/overlap_calibration.py --runs {runs}`, which writes
[the numbers](overlap_calibration.csv): noise in the place of activations, {relations} relations of
{facts} facts in {wordings} wordings, {neutral} neutral prompts, the top {dose} of {neurons:,} neurons,
{deals} deals. *Correlated*: half of the neurons' variance comes from {directions} directions that they
share. *Facts*: prompts of one fact are alike, too, and the two forms of a neutral prompt. *Languages*: so
are translations; four relations in two languages each.

Goals: at most 5% of pairs at p ≤ 0.05, and on average as many neurons expected as are shared, within 10%.
Runs are independent and their pairs are not, so beside each share of pairs stands that of runs in which
all pairs together are more than chance. The last two columns are what was computed before: sets drawn at
random, and the hypergeometric distribution.

{table}
"""


def section(path: Path) -> str:
    """The part of the page that follows from the numbers."""
    return SECTION.format(
        runs=int(pd.read_csv(path)["runs"].max()),
        relations=RELATIONS,
        facts=FACTS,
        wordings=WORDINGS,
        neutral=NEUTRAL,
        dose=DOSE,
        neurons=NEURONS,
        deals=DEALS,
        directions=DIRECTIONS,
        table=table_of(path),
    )


def placed(page: str, own: str) -> str:
    """Puts the section in its place on the page, before the one on intervals, which is made to the end."""
    above, heading, below = page.partition("\n## Intervals\n")
    above = above.partition("\n## Overlap\n")[0].rstrip()
    return f"{above}\n\n{own}{heading}{below}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path("docs/overlap_calibration.csv"))
    parser.add_argument("--page", type=Path, default=Path("docs/calibration.md"))
    options = parser.parse_args()
    measured(options.runs).to_csv(options.out, index=False, float_format="%.4f")
    there = options.page.read_text(encoding="utf-8")
    options.page.write_text(placed(there, section(options.out)), encoding="utf-8")
    print(table_of(options.out))


if __name__ == "__main__":
    main()
