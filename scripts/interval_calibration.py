"""How often 95% intervals hold the truth, in simulations whose truth is known.

    python scripts/interval_calibration.py [--trials 2000]

Writes docs/interval_calibration.csv, a row per scenario, and the section "Intervals" of
docs/calibration.md. Beside each interval stands what Student's would do on the same data: of the mean over
facts, each fact counting once, whatever its subject.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from relation_neurons.analysis.effects import estimate, mean_over_relations
from relation_neurons.analysis.intervals import Part, combined_interval, difference_interval

DOCS = Path(__file__).parents[1] / "docs"
TABLE, PAGE = DOCS / "interval_calibration.csv", DOCS / "calibration.md"
HEADING = "## Intervals"
GOAL = 0.93
RELATIONS = 8
CORRELATION = 0.3
Trial = tuple[tuple[float, float], float, tuple[float, float], float]
"""The interval, its truth, Student's interval, and the truth of that."""
Chances = tuple[float, float]
"""Of losing and of winning a fact."""


@dataclass(frozen=True)
class Scenario:
    """A kind of data, drawn again and again."""

    group: str
    what: str
    draw: Callable[[np.random.Generator], Trial]


def flips(rng: np.random.Generator, shape: tuple[int, ...], chances: Chances) -> np.ndarray:
    lost, won = chances
    return rng.choice([-1.0, 0.0, 1.0], size=shape, p=(lost, 1 - lost - won, won))


def two_prompts(rng: np.random.Generator, facts: int, chances: Chances) -> np.ndarray:
    """Each fact in two wordings, which in half of the cases change together; a row per wording."""
    first, other = flips(rng, (2, facts), chances)
    return np.stack([first, np.where(rng.random(facts) < 0.5, first, other)])


def keys(relation: str, facts: int) -> np.ndarray:
    return np.array([f"{relation}/{fact}" for fact in range(facts)])


def student(values: np.ndarray, other: np.ndarray | None = None) -> tuple[float, float]:
    """Student's interval of a mean, or Welch's of a difference of two."""
    sides = [values] if other is None else [values, other]
    parts = np.array([side.var(ddof=1) / len(side) for side in sides])
    middle = values.mean() - (0.0 if other is None else other.mean())
    if not parts.any():
        return float(middle), float(middle)
    freedom = parts.sum() ** 2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True)
    )
    half = special.stdtrit(freedom, 0.975) * np.sqrt(parts.sum())
    return float(middle - half), float(middle + half)


def one_relation(facts: int, chances: Chances, prompts: int, controls: int) -> Scenario:
    names, truth = np.tile(keys("r", facts), prompts), chances[1] - chances[0]

    def draw(rng: np.random.Generator) -> Trial:
        change = two_prompts(rng, facts, chances)[:prompts]
        mean = 0.0
        if controls:
            change = change - flips(rng, (controls, facts), (0.05, 0.02)).mean(axis=0)
            mean = -0.03
        found = estimate(change.ravel(), names)
        return found[1:], truth - mean, student(change.mean(axis=0)), truth - mean

    asked = f"{facts} facts, {chances[0]:.0%} lost, {chances[1]:.0%} won"
    extra = f", {prompts} prompts each" if prompts > 1 else ""
    extra += f", minus the mean of {controls} controls" if controls else ""
    return Scenario("net flips of one relation", asked + extra, draw)


def specificity(home: tuple[int, Chances], others: tuple[int, Chances]) -> Scenario:
    truth = home[1][1] - home[1][0] - (others[1][1] - others[1][0])
    mine, theirs = np.tile(np.arange(home[0]), 2), np.tile(-1 - np.arange(others[0]), 2)

    def draw(rng: np.random.Generator) -> Trial:
        own, there = (two_prompts(rng, *side) for side in (home, others))
        parts = [Part(own.ravel(), mine), Part(there.ravel(), theirs, -1.0)]
        naive = student(own.mean(axis=0), there.mean(axis=0))
        return combined_interval(parts), truth, naive, truth

    (n, (lost, won)), (m, (lost_there, won_there)) = home, others
    what = (
        f"{n} facts ({lost:.0%} lost, {won:.0%} won) minus {m} elsewhere "
        f"({lost_there:.0%} lost, {won_there:.0%} won)"
    )
    return Scenario("row specificity, net flips", what, draw)


def shared_subjects(subjects: int, lost: float, sharing: int) -> Scenario:
    """Relations in which a subject's facts are lost together, as often as makes the correlation."""
    names = [
        keys(f"r{j}", subjects) if j < sharing else keys(f"r{j}/own {j}", subjects)
        for j in range(RELATIONS)
    ]

    def draw(rng: np.random.Generator) -> Trial:
        shape = (RELATIONS, subjects)
        together = rng.random(shape) < np.sqrt(CORRELATION)
        together[sharing:] = False
        gone = np.where(together, rng.random(subjects) < lost, rng.random(shape) < lost)
        change = np.where(gone, -1.0, 0.0)
        found = mean_over_relations(list(change), names)
        return found[1:], -lost, student(change.ravel()), -lost

    who = {0: "none shared", RELATIONS: "shared by all"}.get(sharing, f"shared by {sharing}")
    what = f"{RELATIONS} relations, {subjects} subjects {who}, {lost:.0%} lost"
    return Scenario("net flips over all relations", what, draw)


def margins(facts: int, sigma: float) -> Scenario:
    names = keys("r", facts)

    def draw(rng: np.random.Generator) -> Trial:
        change = -np.exp(sigma * rng.standard_normal(facts))
        found = estimate(change, names, "margin")
        return found[1:], -1.0, student(change), -np.exp(sigma**2 / 2)

    return Scenario("margins of one relation", f"{facts} facts, lognormal, sigma {sigma}", draw)


def shared_margins(subjects: int, sigma: float) -> Scenario:
    names = [keys(f"r{j}", subjects) for j in range(RELATIONS)]

    def draw(rng: np.random.Generator) -> Trial:
        own = rng.standard_normal((RELATIONS, subjects)) * np.sqrt(1 - CORRELATION)
        common = rng.standard_normal(subjects) * np.sqrt(CORRELATION)
        change = -np.exp(sigma * (own + common))
        found = mean_over_relations(list(change), names, "margin")
        return found[1:], -1.0, student(change.ravel()), -np.exp(sigma**2 / 2)

    what = f"{RELATIONS} relations, {subjects} subjects shared by all, lognormal, sigma {sigma}"
    return Scenario("margins over all relations", what, draw)


def margin_specificity(facts: int, others: int, sigma: float) -> Scenario:
    mine, theirs = keys("own", facts), keys("other", others)

    def draw(rng: np.random.Generator) -> Trial:
        own = -2 * np.exp(sigma * rng.standard_normal(facts))
        there = -np.exp(sigma * rng.standard_normal(others))
        both = estimate(own, mine, "margin"), estimate(there, theirs, "margin")
        return difference_interval(*both), -1.0, student(own, there), -np.exp(sigma**2 / 2)

    what = f"{facts} facts minus {others} elsewhere, lognormal, sigma {sigma}"
    return Scenario("row specificity, margins", what, draw)


def scenarios() -> list[Scenario]:
    found = [
        one_relation(facts, chances, prompts, controls)
        for facts, chances in (
            (10, (0.0, 0.0)),
            (10, (0.02, 0.0)),
            (10, (0.1, 0.0)),
            (20, (0.05, 0.0)),
            (10, (0.5, 0.1)),
            (20, (0.1, 0.05)),
            (20, (0.35, 0.05)),
            (20, (0.5, 0.0)),
            (40, (0.1, 0.05)),
            (40, (0.5, 0.0)),
        )
        for prompts, controls in ((1, 0), (2, 4))
    ]
    found += [
        specificity(*sides)
        for sides in (
            ((10, (0.35, 0.05)), (200, (0.1, 0.05))),
            ((10, (0.05, 0.0)), (200, (0.05, 0.0))),
            ((10, (0.5, 0.0)), (200, (0.02, 0.0))),
            ((200, (0.3, 0.05)), (10, (0.1, 0.02))),
        )
    ]
    found += [
        shared_subjects(subjects, lost, RELATIONS)
        for subjects in (10, 20, 40)
        for lost in (0.02, 0.1, 0.5)
    ]
    found += [shared_subjects(20, lost, sharing) for sharing in (0, 5) for lost in (0.02, 0.1, 0.5)]
    found += [margins(facts, sigma) for facts in (10, 20, 40) for sigma in (0.5, 1.0, 1.5)]
    found += [shared_margins(subjects, 1.5) for subjects in (10, 20, 40)]
    found += [margin_specificity(*counts, 1.5) for counts in ((10, 200), (20, 140))]
    return found


def measure(scenario: Scenario, trials: int, seed: int = 0) -> dict[str, object]:
    """Draws a scenario so often; how often its interval holds the truth, and how wide it is."""
    rng = np.random.default_rng([seed, 0x696E74])
    holds = naive = 0
    widths = []
    for _ in range(trials):
        (low, high), truth, other, other_truth = scenario.draw(rng)
        holds += low <= truth <= high
        naive += other[0] - 1e-12 <= other_truth <= other[1] + 1e-12
        widths.append(high - low)
    return {
        "group": scenario.group,
        "what": scenario.what,
        "trials": trials,
        "holds": holds / trials,
        "student": naive / trials,
        "width": float(np.mean(widths)),
        "least_width": float(np.min(widths)),
    }


INTRO = """Made by `python scripts/interval_calibration.py --trials {trials}`, which writes
`docs/interval_calibration.csv`, on simulated outcomes whose truth is known. The goal is {goal:.0%}
everywhere, and no interval without width; `relation_neurons/analysis/intervals.py` says how they are made.

- *Net flips*: prompts are lost or won with the stated chances. Two prompts of a fact change together
  in half of the cases; controls lose 5% and win 2%.
- *Subjects shared*: whether a subject's fact is lost in one relation and in another correlates by
  {correlation}.
- *Margins*: the intervals are of medians over facts; Student's beside them are of the mean.
- *Student's*: what the usual interval over facts does on the same data (for specificity Welch's), a
  shared subject counting in each relation.
"""


def section(table: pd.DataFrame) -> str:
    """What docs/calibration.md shows of the table."""
    intro = INTRO.format(trials=table["trials"].iloc[0], goal=GOAL, correlation=CORRELATION)
    lines = [
        "| 95% intervals of | data | hold the truth | least width | Student's hold |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.group} | {r.what} | {r.holds:.1%} | {r.least_width:.2f} | {r.student:.1%} |"
        for r in table.itertuples()
    ]
    return "\n".join([HEADING, "", intro, *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    trials = parser.parse_args().trials
    table = pd.DataFrame([measure(one, trials, seed) for seed, one in enumerate(scenarios())])
    table.to_csv(TABLE, index=False, float_format="%.4f")
    above = PAGE.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")[0].rstrip("\n")
    text = section(pd.read_csv(TABLE))
    PAGE.write_text(f"{above}\n\n{text}", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
