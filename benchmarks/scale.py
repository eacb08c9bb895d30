"""Scale: how cost grows with prompts, neurons and relations, as a table and a log-log figure.

python -m benchmarks.scale [--size small|full]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

import relation_neurons as rn
from benchmarks import fixtures, scoring, timing
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.plots.style import TEMPLATE
from relation_neurons.scoring.scores import family_scores

COMMAND = "python -m benchmarks.scale"
STEPS = (1, 2, 4, 8)
RELATIONS = (3, 12, 48)
NEURONS = (4_608, 46_080, 352_256)  # a tiny model, SmolLM2-135M, Llama-2-7B
FORWARD = {"small": 2, "full": 16}  # prompts of the first step of what runs a model
ROUNDS = {"small": 1, "full": 2}
BATCH_SIZE = 64


def rows(size: str) -> list[dict[str, str]]:
    """A row per series: what the last step costs, as a share of what it may cost."""
    made = []
    for (axis, what), series in measure(size).groupby(["axis", "what"], sort=False):
        growth, bound = (series[key] / series[key].iloc[0] for key in ("seconds", "bound"))
        steps = series["n"] / series["n"].iloc[0]
        ratio = float(growth.iloc[-1] / bound.iloc[-1])
        law = series["law"].iloc[0]
        made.append(
            timing.row(
                f"{what}, {axis} {series['n'].iloc[0]:,} to {series['n'].iloc[-1]:,}: "
                "growth of time / growth allowed",
                f"<= 1 ({law})",
                ", ".join(
                    f"x{step:.3g}: {now:.3g} (allowed {most:.3g})"
                    for step, now, most in list(zip(steps, growth, bound, strict=True))[1:]
                ),
                ratio,
                COMMAND,
                f"from {series['seconds'].iloc[0]:.3g} s to {series['seconds'].iloc[-1]:.3g} s; "
                + series["note"].iloc[0],
            )
        )
    return made


@cache
def measure(size: str) -> pd.DataFrame:
    """Times every series.

    Returns:
        A row per point: axis (what grows), what (the stage), n, seconds, bound (proportional to what
        it may cost), law, note.
    """
    prompts, neurons = scoring.PROMPTS[size], scoring.NEURONS[size] // 8
    scored = [
        _scoring(size, "prompts", [(prompts * s, neurons, scoring.RELATIONS) for s in STEPS]),
        _scoring(
            size,
            "neurons",
            [(prompts // 4, n if size == "full" else n // 64, scoring.RELATIONS) for n in NEURONS],
        ),
        _scoring(size, "relations", [(prompts, neurons, r) for r in RELATIONS]),
    ]
    return pd.concat([*scored, _capture(size), _sweep(size)], ignore_index=True)


def figure(size: str) -> go.Figure:
    """Draws time over size on log axes, each series in units of its first point."""
    table = measure(size)
    axes = list(table["axis"].unique())
    made = make_subplots(1, len(axes), subplot_titles=[axis.capitalize() for axis in axes])
    colours = dict(zip(table["what"].unique(), TEMPLATE.layout.colorway, strict=False))
    shown: set[str] = set()
    for column, axis in enumerate(axes, start=1):
        here = table[table["axis"] == axis]
        bound = here[here["what"] == here["what"].iloc[0]]
        grid = np.geomspace(bound["n"].iloc[0], bound["n"].iloc[-1], 30)
        allowed = np.interp(np.log(grid), np.log(bound["n"]), np.log(bound["bound"]))
        lines = [("allowed", grid / grid[0], np.exp(allowed - allowed[0]))]
        for what, series in here.groupby("what", sort=False):
            first = series.iloc[0]
            lines.append((what, series["n"] / first["n"], series["seconds"] / first["seconds"]))
        for what, x, y in lines:
            made.add_scatter(
                x=x,
                y=y,
                name=what,
                legendgroup=what,
                showlegend=what not in shown,
                mode="lines" if what == "allowed" else "lines+markers",
                line={
                    "color": colours.get(what, "#7A7A7A"),
                    "dash": "dot" if what == "allowed" else None,
                },
                row=1,
                col=column,
            )
            shown.add(what)
        ticks = list(dict.fromkeys(bound["n"] / bound["n"].iloc[0]))
        made.update_xaxes(
            type="log",
            tickvals=ticks,
            ticktext=[f"{n:,}" for n in bound["n"]]
            if axis != "prompts"
            else [f"x{s:g}" for s in ticks],
            title_text={
                "prompts": "prompts, relative",
                "neurons": "neurons",
                "relations": "relations",
            }[axis],
            row=1,
            col=column,
        )
        made.update_yaxes(
            range=[-0.12, 1.05 * np.log10(bound["bound"].max() / bound["bound"].iloc[0])],
            row=1,
            col=column,
        )
    made.update_yaxes(type="log", dtick=1)
    made.update_yaxes(title_text="time, relative to the first point", row=1, col=1)
    made.update_layout(
        template=TEMPLATE,
        width=1000,
        height=400,
        margin={"t": 50},
        legend={"orientation": "h", "y": -0.25, "x": 0.5, "xanchor": "center"},
    )
    return made


def _points(
    size: str, what: str, axis: str, counts: list[int], runs: list[Callable[[], Any]], note: str
) -> pd.DataFrame:
    spent = timing.seconds({str(i): run for i, run in enumerate(runs)}, ROUNDS[size])
    n = np.array(counts)
    passes = what != "Scoring"  # of so few prompts, n log n would allow anything
    bounds = {
        "prompts": (n, "linear") if passes else (n * np.log(n), "n log n"),
        "neurons": (n, "linear"),
        "relations": (n, "linear; nearly free is the goal"),
    }
    bound, law = bounds[axis]
    return pd.DataFrame(
        {
            "axis": axis,
            "what": what,
            "n": n,
            "seconds": list(spent.values()),
            "bound": bound,
            "law": law,
            "note": note,
        }
    )


def _scoring(size: str, axis: str, shapes: list[tuple[int, int, int]]) -> pd.DataFrame:
    place = {"prompts": 0, "neurons": 1, "relations": 2}[axis]
    data = [scoring.random_table(*shape) for shape in shapes]
    for table, member in data[:1]:
        family_scores(table, member)  # compiles
    runs = [lambda one=one: family_scores(*one) for one in data]
    held = ["{:,} prompts", "{:,} neurons", "{:,} relations"]
    note = ", ".join(held[i].format(shapes[0][i]) for i in range(3) if i != place)
    return _points(size, "Scoring", axis, [s[place] for s in shapes], runs, note)


def _capture(size: str) -> pd.DataFrame:
    hooked, asked = fixtures.model(size), fixtures.prompts(size).detection
    parts = [fixtures.some(asked, FORWARD[size] * step) for step in STEPS]
    runs = [
        lambda one=one: rn.collect_activations(hooked, one, batch_size=BATCH_SIZE) for one in parts
    ]
    return _points(
        size, "Capture", "prompts", list(map(len, parts)), runs, f"{hooked.cfg.n_layers} layers"
    )


def _sweep(size: str) -> pd.DataFrame:
    hooked, neurons = fixtures.model(size), fixtures.neurons(size)
    asked = fixtures.prompts(size).held_out
    asked = asked.take(asked.frame["kind"] == "fact")
    first = min(FORWARD[size], len(asked) // STEPS[-1])
    plans = [plan_passes(fixtures.some(asked, first * step)) for step in STEPS]

    def one(plan: Any) -> Callable[[], Any]:
        batches = plan.batches(hooked, BATCH_SIZE)

        def run() -> None:
            with rn.ablated(hooked, neurons) as hooks:
                answer_prompts(hooked, plan, batches=batches, before_batch=hooks.start)

        return run

    return _points(
        size,
        "Ablated pass",
        "prompts",
        [plan.prompts for plan in plans],
        [one(plan) for plan in plans],
        f"{len(neurons)} neurons ablated",
    )


if __name__ == "__main__":
    timing.main("scale", rows)
