"""Counts what SmolLM2-135M knows of the atlas, as the tables of docs/relations.md.

For each relation some facts are drawn, the same ones in every language, and asked in all four
templates. Run: python scripts/atlas_known.py [facts per relation]
"""

from __future__ import annotations

import sys
from dataclasses import replace

import pandas as pd

import relation_neurons as rn
from relation_neurons.relations.selection import draw_facts

LANGUAGES = ("en", "de", "es", "fr", "zh", "ja")


def main(count: int) -> None:
    model = rn.load_model("smollm2-135m")
    whole = {(one.name, one.language): one for one in rn.load_relations("atlas", languages="all")}
    asked = []
    for one in whole.values():
        templates = [replace(template, side="detection") for template in one.templates]
        asked.append(draw_facts(one, count).with_templates(templates))
    prompts = rn.make_prompts(asked, model.tokenizer, nonsense=0, background=False)
    recall = rn.measure_recall(model, prompts)
    answered = prompts.frame.merge(recall[["prompt_id", "known"]], on="prompt_id")
    keys = ["relation", "language"]
    any_wording = answered.groupby([*keys, "fact"])["known"].any().groupby(level=keys).mean()
    wordings = answered.groupby([*keys, "template"], sort=False)["known"].mean()
    print("| relation | facts | majority answer | known | on each wording | also in |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, language), one in whole.items():
        if language != "en":
            continue
        answer, share = one.majority()
        others = [other for other in LANGUAGES[1:] if (name, other) in whole]
        each = ", ".join(f"{value:.0%}" for value in wordings[name, "en"])
        print(
            f"| {name} | {len(one.facts)} | {answer}, {share:.0%} | {any_wording[name, 'en']:.0%} "
            f"| {each} | {' '.join(others)} |"
        )
    table = any_wording.unstack("language")[list(LANGUAGES)].dropna()
    total = answered[answered["relation"].isin(table.index)]
    facts = total.groupby(["language", "relation", "fact"])["known"].any()
    table.loc["all nine" if len(table) == 9 else "all"] = facts.groupby(level="language").mean()
    print("\n" + _markdown(table))


def _markdown(table: pd.DataFrame) -> str:
    lines = [
        f"| known of | {' | '.join(table.columns)} |",
        "| --- |" + " --- |" * len(table.columns),
    ]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join(f"{value:.0%}" for value in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
