"""The headline of a run: home effects against controls, other sets and checks, from the tables alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.analysis.cell_tests import judge_all
from relation_neurons.analysis.cumulativity import dose_curves
from relation_neurons.analysis.effects import (
    Estimate,
    estimate,
    fact_keys,
    paired_changes,
    prompt_changes,
    relations_and_subjects,
    within_language,
)
from relation_neurons.analysis.interference import draws_at, interference_matrix
from relation_neurons.analysis.resampling import by_fact, sign_flip_test
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.relation import ALL_RELATIONS, relation_label

__all__ = ["contrasts", "headline", "known_against_others", "known_by_language"]


def known_by_language(
    recall: pd.DataFrame, ranking: Ranking, contrast: str = "specific"
) -> pd.DataFrame:
    """Counts what the model knows in each language, over all relations of the run.

    Returns:
        language, relations (asked), ranked, facts, known (facts with at least one prompt answered
        correctly), and share.
    """
    facts = recall.groupby(["language", "relation", "subject"], sort=True)["known"].any()
    table = facts.groupby(level="language").agg(facts="size", known="sum")
    ranked = pd.Series([lang for _, lang in ranking.labels(contrast)], dtype=str).value_counts()
    table.insert(0, "relations", recall.groupby("language")["relation"].nunique())
    table.insert(1, "ranked", ranked.reindex(table.index, fill_value=0))
    return table.assign(share=table["known"] / table["facts"]).reset_index()


def headline(effects: pd.DataFrame, *, dose: int, contrast: str = "specific") -> pd.DataFrame:
    """Returns the effect at home and elsewhere, and that of both controls at home, at one dose.

    Returns:
        relation, what (`home` / `elsewhere` / `control_contribution` / `control_layer`), effect (net
        flips per prompt over all held-out prompts), its 95% interval low and high (see `intervals`), n;
        the last rows cover all relations.
    """
    effects = within_language(effects)
    rows = effects[(effects["score"] == contrast) & (effects["dose"] == dose)]
    at_home = rows["relation"].astype(str) == rows["ablated"].astype(str)
    ranked = rows["kind"] == "ranked"
    what = rows["kind"].astype(str).where(~ranked, "home").where(at_home | ~ranked, "elsewhere")
    rows = rows.assign(what=what, fact=fact_keys(rows), ablated=rows["ablated"].astype(str))
    kept = rows[at_home | ranked]
    found: list[dict[str, Any]] = []
    overall = kept.assign(ablated=ALL_RELATIONS)
    for part in (kept, overall):
        for (relation, name), cell in part.groupby(["ablated", "what"], sort=True):
            effect, low, high = _mean_change(cell)
            found.append(
                {
                    "relation": relation,
                    "what": name,
                    "effect": effect,
                    "low": low,
                    "high": high,
                    "n": cell["prompt_id"].nunique(),
                }
            )
    return pd.DataFrame(found)


def known_against_others(
    effects: pd.DataFrame, *, dose: int, contrast: str = "specific"
) -> pd.DataFrame:
    """Returns the home effect under each contrast at one dose: known facts beside the checks.

    Returns:
        relation, score, effect, low, high, control (mean effect of its contribution-matched
        control at home, NaN if none was drawn), n. The relation `all relations` pools the prompts of
        the relations that have every contrast.
    """
    curves = []
    here = effects[effects["dose"] == dose]
    several = here["language"].nunique() > 1
    for name in [contrast, *sorted(set(here["score"].astype(str)) - {contrast})]:
        table = dose_curves(here, contrast=name)
        pairs = zip(table["ablated"], table["ablated_language"], strict=True)
        table["ablated"] = [relation_label(r, lang, several=several) for r, lang in pairs]
        table = table[table["where"] == "home"]
        control = table[table["kind"] == "control_contribution"].set_index("ablated")["effect"]
        ranked = table[table["kind"] == "ranked"]
        curves.append(ranked.assign(score=name, control=ranked["ablated"].map(control)))
    table = pd.concat(curves, ignore_index=True).rename(columns={"ablated": "relation"})
    complete = table.groupby("relation")["score"].nunique()
    complete = complete[complete == table["score"].nunique()].index
    here = within_language(here)
    home = here[
        (here["kind"] == "ranked")
        & (here["relation"].astype(str) == here["ablated"].astype(str))
        & here["ablated"].astype(str).isin(complete)
    ]
    rows = []
    for name, cell in home.groupby(home["score"].astype(str)):
        effect, low, high = _mean_change(cell.assign(fact=fact_keys(cell)))
        own = table[(table["score"] == name) & table["relation"].isin(complete)]
        own = own[own["control"].notna()]  # weighed by prompts, as the effect is
        control = np.average(own["control"], weights=own["n"]) if len(own) else np.nan
        rows.append(
            {
                "relation": ALL_RELATIONS,
                "score": name,
                "effect": effect,
                "low": low,
                "high": high,
                "control": float(control),
                "n": len(cell),
            }
        )
    columns = ["relation", "score", "effect", "low", "high", "control", "n"]
    return pd.concat([table[columns], pd.DataFrame(rows, columns=columns)], ignore_index=True)


def contrasts(
    effects: pd.DataFrame,
    home_draws: pd.DataFrame | None = None,
    *,
    dose: int,
    contrast: str = "specific",
    seed: int = 0,
    matrix: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compares the effect of a relation's set on its own facts with other effects on the same prompts.

    `against` is a control kind (mean of its draws), `others` (mean of the other relations' sets), or
    the relation's set under another contrast. Differences are paired per prompt, so that neither the
    prompts' difficulty nor the effect of damage in general enters.

    Returns:
        relation, against, difference (net flips per prompt), low, high (its 95% interval, see
        `intervals`), n (prompts), p_sign_flip, and for the contribution-matched control p_draws and
        p_value (see `cell_tests`; one named comparison each, one-sided, not corrected); the last rows
        cover all relations (see `judge_all`).
    """
    if matrix is None:
        matrix = interference_matrix(effects, home_draws, dose=dose, contrast=contrast, seed=seed)
    tested = _control_tests(effects, matrix, dose, contrast, seed)
    effects = within_language(effects)
    rows = effects[effects["dose"] == dose]
    change = rows["correct"].astype(float) - rows["correct_intact"].astype(float)
    ablated, relation = rows["ablated"].astype(str), rows["relation"].astype(str)
    kind, scored = rows["kind"].astype(str), rows["score"].astype(str)
    at_home, main, ranked = ablated == relation, scored == contrast, kind == "ranked"
    against = kind.where(~ranked, scored).mask(main & ranked & at_home, "home")
    against = against.mask(main & ranked & ~at_home, "others")
    kept = (at_home & (main | ranked)) | (~at_home & main & ranked)
    per_prompt = (
        pd.DataFrame(
            {
                "relation": relation,
                "against": against,
                "prompt_id": rows["prompt_id"],
                "fact": fact_keys(rows),
                "change": change,
            }
        )[kept]
        .groupby(["relation", "fact", "prompt_id", "against"])["change"]
        .mean()
        .unstack("against")
    )
    found: list[dict[str, Any]] = []
    for name, part in [*per_prompt.groupby(level="relation"), (ALL_RELATIONS, per_prompt)]:
        for column in part.columns.drop("home"):
            paired = (part["home"] - part[column]).dropna()
            if len(paired):
                facts = paired.index.get_level_values("fact")
                difference, low, high = estimate(paired.to_numpy(), facts)
                unit = relations_and_subjects(facts)[1] if name == ALL_RELATIONS else facts
                flips = sign_flip_test(by_fact(paired.to_numpy(), unit), seed=seed)
                row = {"relation": name, "against": column, "difference": difference}
                row |= {"low": low, "high": high, "n": len(paired), "p_sign_flip": flips}
                if column == "control_contribution":
                    row |= tested.get(name, {})
                found.append(row)
    columns = ["relation", "against", "difference", "low", "high", "n"]
    return pd.DataFrame(found, columns=[*columns, "p_sign_flip", "p_draws", "p_value"])


def _mean_change(cell: pd.DataFrame) -> Estimate:
    """Returns the mean net flips over a cell's prompts, with its interval."""
    mean = prompt_changes(cell)
    return estimate(mean.to_numpy(), mean.index.get_level_values("fact"))


def _control_tests(
    effects: pd.DataFrame, matrix: pd.DataFrame, dose: int, contrast: str, seed: int
) -> dict[str, dict[str, float]]:
    """Returns the tests against the contribution-matched control at home, of each relation and of all."""
    home = matrix[(matrix["family"] == "home") & (matrix["draws"] > 0)].set_index("ablated")
    names = ["p_sign_flip", "p_draws", "p_value"]
    found = {str(name): row for name, row in home[names].to_dict("index").items()}
    paired = paired_changes(within_language(effects), contrast=contrast)
    paired = paired[paired["dose"] == dose]
    draws, _ = draws_at(effects, None, dose, contrast=contrast)
    together = judge_all(paired, draws, matrix, seed=seed)
    return {**found, ALL_RELATIONS: together._asdict()} if len(home) else found
