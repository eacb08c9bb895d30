"""A finished run with chosen effects and no model, for the report and what shows itself."""

from __future__ import annotations

import numpy as np
import pandas as pd

from relation_neurons.ranking.table import Ranking
from relation_neurons.report.summary import summarise
from relation_neurons.results.results import Results

NAMES = [
    "city_country",
    "country_capital",
    "country_continent",
    "country_language",
    "country_neighbor",
    "landmark_country",
    "thing_kind",
    "word_opposite",
]
EVIL = "<script>alert(1)</script> & <b>Co</b> \"q\" 'a' {{ 7 * 7 }} {% raw %} ${1 + 1} </table>"
"""A subject that would be markup, a script or a template, were it not kept as text."""
DOSES, LAYERS, WIDTH, PROMPTS = (23, 92, 369), 30, 1536, 16


def make_results(names=NAMES, *, home=-0.45, unknown=-0.40, seed=0, sinks=4) -> Results:
    """A run as it would be, with chosen effects and no model."""
    rng = np.random.default_rng(seed)
    rows = []
    for relation in names:
        for side, count in (("detection", 30), ("held_out", PROMPTS)):
            for i in range(count):
                subject = EVIL if i == 0 else f"{relation} subject {i}"
                rows.append((relation, "en", subject, f"answer {i % 7}", side, i))
    prompts = pd.DataFrame(rows, columns=["relation", "language", "subject", "answer", "side", "i"])
    prompts.insert(0, "prompt_id", range(len(prompts)))
    prompts["kind"] = "fact"
    prompts["template"] = "The answer for {} is"
    prompts["text"] = [f"The answer for {subject} is" for subject in prompts["subject"]]
    known = rng.random(len(prompts)) < 0.75
    known[prompts["i"] == 0] = True
    recall = prompts[["prompt_id", "relation", "language", "subject", "side"]].assign(
        known=known, margin=rng.normal(1, 2, len(prompts)), logprob=-1.0, logprob_per_token=-1.0
    )
    recall["predicted"] = [
        " " + a if k else " wrong" for a, k in zip(prompts.answer, known, strict=True)
    ]
    asked = prompts[prompts["side"] == "held_out"]
    intact = known[asked["prompt_id"]]

    def condition(relation, kind, contrast, dose, draw, base):
        rate = {23: 0.45, 92: 1.0, 369: 1.5}[dose]
        at_home = (asked["relation"] == relation).to_numpy()
        drop = np.where(at_home, base[0], base[1]) * rate / intact.mean()
        correct = intact & (rng.random(len(asked)) > -drop)
        correct |= ~intact & (rng.random(len(asked)) < 0.04)
        if kind == "ranked" and home < -0.1:
            correct[at_home & (asked["i"] == 0).to_numpy()] = False
        return pd.DataFrame(
            {
                "ablated": relation,
                "ablated_language": "en",
                "kind": kind,
                "score": contrast,
                "dose": dose,
                "draw": draw,
                "prompt_id": asked["prompt_id"].to_numpy(),
                "relation": asked["relation"].to_numpy(),
                "language": "en",
                "template_held_out": True,
                "correct_intact": intact,
                "correct": correct,
                "margin_intact": 1.0,
                "margin": 1.0 + (correct.astype(float) - intact),
                "logprob_intact": -1.0,
                "logprob": -1.2,
                "predicted": np.where(correct, "right", " <i>other</i>"),
            }
        )

    parts = []
    for relation in names:
        for dose in DOSES:
            parts.append(condition(relation, "ranked", "specific", dose, 0, (home, -0.07)))
            for draw in range(2):
                for kind, base in (("control_contribution", -0.03), ("control_layer", -0.01)):
                    parts.append(condition(relation, kind, "specific", dose, draw, (base, base)))
        if unknown is not None:
            parts.append(condition(relation, "ranked", "unknown", 92, 0, (unknown, -0.07)))
    effects = pd.concat(parts, ignore_index=True)

    tops = []
    for contrast in ("specific", "background", "unknown"):
        for k, relation in enumerate(names):
            peak = rng.normal(12 + k % 8, 4, 2400).clip(0, LAYERS - 1).round().astype(int)
            pool = 60 if contrast == "background" else WIDTH
            pairs = dict.fromkeys(zip(peak, rng.integers(0, pool, 2400), strict=True))
            pairs = list(pairs)[:400]
            tops.append(
                pd.DataFrame(
                    {
                        "score": contrast,
                        "relation": relation,
                        "language": "en",
                        "rank": np.arange(1, len(pairs) + 1),
                        "layer": [a for a, _ in pairs],
                        "neuron": [b for _, b in pairs],
                        "ap": np.linspace(1, 0.8, len(pairs)),
                        "d_prime": np.linspace(6, 2, len(pairs)),
                        "mean_positive": 1.0,
                        "mean_negative": 0.0,
                        "is_sink": np.arange(len(pairs)) % 97 < (sinks > 0),
                    }
                )
            )
    neurons = pd.DataFrame(
        {"layer": np.repeat(range(LAYERS), WIDTH), "neuron": np.tile(range(WIDTH), LAYERS)}
    )
    ranking = Ranking(pd.concat(tops, ignore_index=True), neurons, "post")
    ranking.left_out["star_constellation"] = "knows only 3 held_out facts, 10 are needed"
    manifest = {
        "model": {
            "name": "smollm2-135m",
            "weight_hash": "ab" * 32,
            "n_layers": LAYERS,
            "d_mlp": WIDTH,
            "n_neurons": LAYERS * WIDTH,
            "dtype": "float32",
            "device": "cpu",
        },
        "options": {"score": "specific", "site": "post", "min_known": 10},
        "seed": 0,
        "versions": {"relation_neurons": "0.2.0", "torch": "2.9"},
        "relations": [
            {
                "name": name,
                "language": "en",
                "description": f"About {name}. {EVIL}",
                "facts": 46,
                "templates": [{"text": "The {} is", "form": "statement", "side": "detection"}],
                "source": "https://example.org/data",
                "copied": 1,
                "rows": {"duplicates": 2},
                "majority_object": "answer 0",
                "majority_share": 0.15,
            }
            for name in names
        ],
        "bos": "none",
        "padding": "left, masked",
    }
    summary = summarise(manifest, recall, ranking, effects)
    return Results(manifest, prompts, recall, ranking, effects, summary)
