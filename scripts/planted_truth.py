"""How well each setting finds the neurons that were planted, and what it takes for them.

    python scripts/planted_truth.py [--seeds 5] [--write docs/planted.md]

For every pooling, order and number of detection templates, and under both contrasts: the share of the
planted neurons among as many top-ranked ones, averaged over relations and seeds; the roles of the
others; and the same for the neurons shared by two relations' top sets. With `--write` the table
replaces the one between the markers of that file.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import pandas as pd

import relation_neurons as rn
from relation_neurons.activations.pooling import POOLS
from relation_neurons.planted.model import planted_model
from relation_neurons.planted.recovery import recovered, recovered_shared
from relation_neurons.ranking.rank import ORDERS

MARKS = ("<!-- table: scripts/planted_truth.py -->", "<!-- end of table -->")
DEFAULT = (3, "mean", "d_prime")
PAPER = (1, "include_first", "index")


def judge(seed: int) -> list[dict[str, object]]:
    """One planted model under every setting."""
    rows = []
    for templates in (1, 2, 3):
        planted = planted_model(templates=templates, seed=seed)
        prompts = rn.make_prompts(
            planted.relations,
            planted.model.tokenizer,
            held_out=0.5,
            nonsense=0,
            single_template=templates == 1,
            seed=seed,
        )
        recall = rn.measure_recall(planted.model, prompts)
        for pool in POOLS:
            table = rn.collect_activations(planted.model, prompts.detection, pool=pool)
            for order in ORDERS:
                ranking = rn.rank_neurons(table, recall, order=order)
                for contrast in ("specific", "background"):
                    found = recovered(ranking, planted.truth, contrast=contrast)
                    shared = recovered_shared(ranking, planted.truth, contrast=contrast)
                    pairs = shared[shared["planted"] > 0]
                    hits = (pairs["precision"].fillna(0) * pairs["found"]).sum()
                    rows.append(
                        {
                            "setting": (templates, pool, order),
                            "score": contrast,
                            "hits": hits,
                            "found": shared["found"].sum(),
                            "planted": pairs["planted"].sum(),
                            "false": count_roles(found["false"]),
                            "wanted": found["dose"].sum(),
                        }
                    )
    return rows


def count_roles(texts: pd.Series) -> Counter[str]:
    """Adds up `template 3, noise 1` over relations."""
    counts: Counter[str] = Counter()
    for text in texts:
        for part in filter(None, text.split(", ")):
            role, number = part.rsplit(" ", 1)
            counts[role] += int(number)
    return counts


def summarise(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Averages over seeds; a row per setting."""
    frame = pd.DataFrame(rows)
    names = {DEFAULT: "default", PAPER: "paper"}
    lines = []
    for setting, here in frame.groupby("setting"):
        templates, pool, order = setting
        line = {
            "setting": names.get(setting, ""),
            "templates": templates,
            "pool": pool,
            "order": order,
        }
        for contrast, part in here.groupby("score", sort=False):
            false: Counter[str] = sum(part["false"], Counter())
            hits, found, planted = (part[name].sum() for name in ("hits", "found", "planted"))
            right = 1 - false.total() / part["wanted"].sum()
            precision = f"{hits / found:.2f}" if found else "none"
            roles = [
                f"{role} {number / part['wanted'].sum():.1%}"
                for role, number in false.most_common()
            ]
            line |= {
                f"{contrast}: precision = recall": f"{right:.2f}",
                f"{contrast}: in their place": ", ".join(roles),
                f"{contrast}: shared, precision / recall": f"{precision} / {hits / planted:.2f}",
            }
        lines.append(line)
    return pd.DataFrame(lines)


def as_markdown(table: pd.DataFrame) -> str:
    """A table in GitHub's format, the named settings in bold."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    for row in table.itertuples(index=False):
        cells = [f"**{cell}**" if row.setting and str(cell) else str(cell) for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    table = as_markdown(summarise([row for seed in range(chosen.seeds) for row in judge(seed)]))
    print(table)
    if chosen.write:
        before, _, rest = chosen.write.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        text = f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}"
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
