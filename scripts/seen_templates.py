"""How much of the effect is the wording: the same sets judged on seen and on unseen templates.

Ranks on the detection templates, then ablates at one dose and asks the held-out facts twice: with the
detection templates, which the sets were found on, and with the held-out ones. Takes some five minutes
on two CPU cores.

Usage: python scripts/seen_templates.py [--dose 0.2%]
"""

from __future__ import annotations

import argparse

import pandas as pd

import relation_neurons as rn


def home_effect(effects: pd.DataFrame, prompts: rn.Prompts) -> pd.Series:
    """Mean net flips per prompt at home, by the form of the prompt."""
    table = effects.merge(prompts.frame[["prompt_id", "form"]], on="prompt_id")
    home = table[table["ablated"].astype(str) == table["relation"].astype(str)]
    change = home["correct"].astype(float) - home["correct_intact"].astype(float)
    return change.groupby([home["ablated"].astype(str), home["form"]]).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dose", default="0.2%")
    dose = parser.parse_args().dose
    model = rn.load_model("smollm2-135m")
    relations = rn.load_relations("demo")
    unseen = rn.make_prompts(relations, model.tokenizer, held_out=20)
    seen_relations = [
        relation.with_templates(relation.templates_of("detection")) for relation in relations
    ]
    seen = rn.make_prompts(seen_relations, model.tokenizer, held_out=20)
    table = rn.collect_activations(model, unseen.detection)
    ranking = rn.rank_neurons(table, rn.measure_recall(model, unseen))
    columns = {}
    for name, prompts in (("seen", seen.held_out), ("unseen", unseen.held_out)):
        effects = rn.ablation_sweep(model, prompts, ranking, (dose,), control_draws=0)
        columns[name] = home_effect(effects, prompts)
    found = pd.DataFrame(columns).unstack("form")
    found.loc["all relations"] = found.mean()
    print(found.round(2).to_string())


if __name__ == "__main__":
    main()
