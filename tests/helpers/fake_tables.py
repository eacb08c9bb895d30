"""Tables for figures, made up for any number of relations, and every figure of them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from relation_neurons import plots
from relation_neurons.analysis.interference import specificity

DOSES = (23, 92, 369)


def names_of(count: int) -> list[str]:
    return [f"country_{i}" for i in range(count)]


def make_matrix(names) -> pd.DataFrame:
    rows = []
    for i, ablated in enumerate(names):
        for j, relation in enumerate(names):
            effect = -0.45 if i == j else (0.19 if (i, j) == (0, 1) else -0.07)
            near = {"low": effect - 0.2, "high": effect + 0.25}
            rows.append(
                {"ablated": ablated, "relation": relation, "dose": 92, "n": 16}
                | {"effect": effect, "control": -0.03, "difference": effect + 0.03, **near}
                | {"p_value": 0.001 if i == j else 0.3, "q_value": 0.002 if i == j else 0.4}
                | {"family": "home" if i == j else "away", "draws": 99, "draws_needed": 0}
                | {"draw_overlap": 0.03, "inflation": 1.0, "least_p": 0.01}
                | {"significant": i == j}
            )
    return pd.DataFrame(rows)


def make_curves(names) -> pd.DataFrame:
    rows = []
    for name in names:
        for where, kind, base in (
            ("home", "ranked", -0.45),
            ("home", "control_contribution", -0.03),
            ("home", "control_layer", -0.02),
            ("elsewhere", "ranked", -0.07),
        ):
            for k, dose in enumerate(DOSES):
                effect = base * (k + 1) / 2
                rows.append(
                    {"ablated": name, "ablated_language": "en", "where": where, "kind": kind}
                    | {"dose": dose, "n": 16, "effect": effect}
                    | {"low": effect - 0.1, "high": effect + 0.1}
                )
    return pd.DataFrame(rows)


def make_headline(names) -> pd.DataFrame:
    what = ("home", "elsewhere", "control_contribution", "control_layer")
    return pd.DataFrame(
        [
            {"relation": name, "what": w, "effect": e, "low": e - 0.1, "high": e + 0.1, "n": 16}
            for k, name in enumerate([*names, "all relations"])
            for w, e in zip(what, (-0.2 - 0.001 * k, -0.07, -0.03, -0.02), strict=True)
        ]
    )


def make_scores(names) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"relation": name, "score": contrast, "effect": e, "low": e - 0.1, "high": e + 0.1}
            | {"control": -0.03 if contrast == "specific" else math.nan, "n": 16}
            for name in names
            for contrast, e in (("specific", -0.4), ("unknown", -0.35))
        ]
    )


def make_overlap(names) -> pd.DataFrame:
    nothing = dict.fromkeys(("expected", "ratio", "p_value", "q_value"), math.nan)
    chance = {"expected": 3.5, "ratio": 2.0, "p_value": 0.03, "q_value": 0.06}
    table = pd.DataFrame(
        [
            {"relation": a, "language": "en", "other": b, "other_language": "en"}
            | {"score": "background", "dose": 92, "shared": 92 if a == b else 7, "jaccard": 0.04}
            | (nothing if a == b else chance)
            for a in names
            for b in names
        ]
    )
    table.attrs.update(no_null="", deals=99, shared_total=21.0, expected_total=10.5, p_total=0.02)
    return table


def make_ranking(names, dose=92) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = pd.concat(
        pd.DataFrame(
            {
                "score": "specific",
                "relation": name,
                "language": "en",
                "rank": range(1, dose + 1),
                "layer": [i % 5 for i in range(dose)],
                "neuron": range(dose),
                "is_sink": [i == 0 for i in range(dose)],
            }
        )
        for name in names
    )
    neurons = pd.DataFrame({"layer": np.repeat(range(10), 200), "neuron": list(range(200)) * 10})
    return frame, neurons


def make_standings(names) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "by": names,
            "site": "post",
            "end": ["bottom" if i == 0 else "top" for i in range(len(names))],
            "dose": 92,
            "home": np.linspace(-0.5, 0, len(names)),
            "control": -0.02,
            "specificity": np.linspace(-0.3, 0.1, len(names)),
            "low": np.linspace(-0.4, 0.0, len(names)),
            "high": np.linspace(-0.2, 0.2, len(names)),
        }
    )


def make_all(names) -> dict[str, go.Figure]:
    matrix = make_matrix(names)
    transfer = matrix.assign(
        ablated_language="en", language="en", transfer=matrix["difference"] / -0.42
    )
    return {
        "curve": plots.dose_curve(make_curves(names), names[0]),
        "curves": plots.dose_curves(make_curves(names)),
        "interference": plots.interference(matrix),
        "specificity": plots.specificity(specificity(matrix)),
        "overlap": plots.overlap(make_overlap(names)),
        "transfer": plots.transfer(transfer),
        "layers": plots.layers(*make_ranking(names)),
        "bars": plots.layers(*make_ranking(names), names[0]),
        "scores": plots.score_comparison(make_scores(names), dose=92),
        "headline": plots.headline(make_headline(names), dose=92),
        "standings": plots.standings(make_standings(names)),
    }
