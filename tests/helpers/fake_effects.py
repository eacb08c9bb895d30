"""An effects table made by hand, whose changes are known by construction."""

from __future__ import annotations

import pandas as pd


def effects_table(changes, doses=(5, 10), prompts=4):
    """Effects where the ranked set of a relation flips a stated share of each relation's prompts."""
    rows = []
    for ablated in ("a", "b"):
        for kind, draws in (("ranked", 1), ("control_contribution", 2), ("control_layer", 1)):
            for draw in range(draws):
                for dose in doses:
                    for number, relation in enumerate(("a", "b")):
                        lost = changes.get((ablated, relation, kind, dose), 0)
                        for i in range(prompts):
                            rows.append(
                                {
                                    "ablated": ablated,
                                    "ablated_language": "en",
                                    "kind": kind,
                                    "score": "specific",
                                    "dose": dose,
                                    "draw": draw,
                                    "prompt_id": number * prompts + i,
                                    "relation": relation,
                                    "language": "en",
                                    "template_held_out": True,
                                    "correct_intact": True,
                                    "correct": i >= lost,
                                    "margin_intact": 1.0,
                                    "margin": 1.0 - lost,
                                    "logprob_intact": -1.0,
                                    "logprob": -1.0 - lost,
                                    "predicted": "x",
                                }
                            )
    return pd.DataFrame(rows)


CHANGES = {
    ("a", "a", "ranked", 5): 1,
    ("a", "a", "ranked", 10): 3,
    ("a", "b", "ranked", 10): 1,
    ("a", "a", "control_contribution", 10): 1,
    ("b", "b", "ranked", 10): 2,
}
