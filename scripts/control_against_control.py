"""How often two draws of the same control "differ": what the intervals over prompts leave out.

Reads a results folder and needs no model. Nothing is ranked here, so 5% of the cells would exclude 0
if the intervals held all the variation there is.

Usage: python scripts/control_against_control.py [results/reference]
"""

from __future__ import annotations

import sys

import relation_neurons as rn
from relation_neurons.statistics import bootstrap_interval


def main() -> None:
    effects = rn.load_results(sys.argv[1] if len(sys.argv) > 1 else "results/reference").effects
    change = effects["correct"].astype(float) - effects["correct_intact"].astype(float)
    away = effects["ablated"].astype(str) != effects["relation"].astype(str)
    table = effects.assign(change=change)[away & (effects["score"] == "specific")]
    for kind in ("control_contribution", "control_layer"):
        excluded = cells = 0
        here = table[table["kind"] == kind]
        for _, cell in here.groupby(["ablated", "dose", "relation"], observed=True):
            draws = cell.pivot(index="prompt_id", columns="draw", values="change")
            low, high = bootstrap_interval((draws[0] - draws[1]).to_numpy())
            cells += 1
            excluded += low > 0 or high < 0
        print(f"{kind}: {excluded} of {cells} cells exclude 0 ({excluded / cells:.0%})")


if __name__ == "__main__":
    main()
