"""Nothing where there is nothing, and something where there is: the whole method, many times over.

Each run goes from prompts to the tested interference matrix.

- null: labels are shuffled among facts *before* ranking, on planted models and on a random one; how
  many runs claim any significant cell? Beside it, what the sign-flip test alone would claim.
- null of the largest AP: how many shuffled rankings have neurons "beyond chance"?
- power: planted models whose relations lose a stated share of their facts; how many runs find it?

How often intervals hold the truth, scripts/interval_calibration.py says.

Usage: python scripts/calibration.py [--runs 200] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
import torch
from calibration_tables import write
from draw_calibration import drawn_until_clear
from transformers import LlamaConfig, LlamaForCausalLM

import relation_neurons as rn
from relation_neurons.ablation.sets import draw_controls, plan_sweep
from relation_neurons.ablation.sweep import ablate_sets
from relation_neurons.analysis.cell_tests import false_discovery
from relation_neurons.analysis.contrasts import contrasts
from relation_neurons.analysis.draw_tests import ALPHA
from relation_neurons.planted.model import Planted
from relation_neurons.ranking.null import null_maximum

DOSE, DRAWS = 12, 10
RELATIONS = 4
DEMO_RELATIONS = 8


@cache
def planted(seed: int, carried: float = 1.0) -> Planted:
    return rn.planted_model(relations=RELATIONS, carried=carried, seed=seed)


@cache
def random_model(seed: int) -> Planted:
    """A random Llama that is asked the planted facts, of which it knows nothing."""
    truth = planted(seed)
    torch.manual_seed(seed)  # transformers draws weights from the global generator
    config = LlamaConfig(
        vocab_size=truth.model.cfg.d_vocab,
        hidden_size=48,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        architectures=["LlamaForCausalLM"],
    )
    model = LlamaForCausalLM(config).float().eval()
    return replace(truth, model=rn.load_model(model, tokenizer=truth.model.tokenizer))


@cache
def measured(
    kind: str, seed: int, split: int
) -> tuple[Planted, rn.Prompts, pd.DataFrame, rn.ActivationTable]:
    source = (planted if kind == "planted" else random_model)(seed)
    prompts = rn.make_prompts(
        source.relations,
        source.model.tokenizer,
        held_out=0.4,
        nonsense=0,
        seed=split,
        hold_out_templates=1,
    )
    recall = rn.measure_recall(source.model, prompts)
    return source, prompts, recall, rn.collect_activations(source.model, prompts.detection)


def shuffled(
    prompts: rn.Prompts, table: rn.ActivationTable, recall: pd.DataFrame, rng: np.random.Generator
) -> tuple[rn.Prompts, rn.ActivationTable, pd.DataFrame]:
    """Deals the relations' labels out anew among the facts of each side, all prompts of one together.

    Held-out facts are dealt too: of a planted model, a set ranked for no relation may well hold neurons
    of one, and it would be right to say that it harms that one's facts.
    """
    frame = prompts.frame.copy()
    fact = frame["kind"] == "fact"
    units = frame.loc[fact, ["side", "relation", "fact"]].drop_duplicates()
    units["dealt"] = units.groupby("side")["relation"].transform(lambda one: rng.permutation(one))
    renamed = frame.loc[fact].merge(units, on=["side", "relation", "fact"], how="left")["dealt"]
    # Subjects recur in every relation; one that is dealt twice to the same must count as two facts.
    for column in ("subject", "fact"):
        own = frame["relation"] + "/" + frame[column].astype(str)
        frame[column] = frame[column].astype(object).where(~fact, own)
    frame.loc[fact, "relation"] = renamed.to_numpy()
    names = frame.set_index("prompt_id")[["relation", "subject"]]
    rows = table.prompts.copy()
    for part in (rows, recall := recall.copy()):
        part[["relation", "subject"]] = names.loc[part["prompt_id"]].to_numpy()
    rows["fact"] = frame.set_index("prompt_id").loc[rows["prompt_id"], "fact"].to_numpy()
    return replace(prompts, frame=frame), replace(table, prompts=rows), recall


def judge(
    source: Planted, prompts: rn.Prompts, ranking: rn.Ranking, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Returns the tables `effects` and `home_draws`, drawn for as a run does, and the matrix."""
    effects = rn.ablation_sweep(
        source.model,
        prompts.held_out,
        ranking,
        (DOSE,),
        control_draws={"control_contribution": DRAWS},
        seed=seed,
    )
    asked = {"quantity": "correct" if effects["correct_intact"].any() else "margin", "seed": seed}
    ranked = plan_sweep(ranking, (DOSE,), control_draws=0)
    sets = {one.ablated: one for one in ranked}

    def draw(relation: str, draws: range) -> pd.DataFrame:
        own = prompts.held_out.take(prompts.held_out.frame["relation"] == relation)
        controls = draw_controls(sets[relation], ranking, draws, seed=seed)
        return ablate_sets(source.model, own, ranking, controls)

    matrix, home_draws = drawn_until_clear(
        lambda home_draws: rn.interference_matrix(effects, home_draws, **asked), draw
    )
    return effects, home_draws, matrix


def null_runs(kind: str, runs: int) -> Iterator[dict[str, object]]:
    """Runs on shuffled labels; ten models, each with its own splits."""
    for run in range(runs):
        source, prompts, recall, table = measured(kind, run % 10, run // 10 % 5)
        rng = np.random.default_rng([run, 0x6E756C])
        if kind == "random":  # it knows nothing: which facts count as known is drawn
            recall = recall.assign(known=rng.random(len(recall)) < 0.8)
        prompts, table, recall = shuffled(prompts, table, recall, rng)
        _, _, matrix = judge(source, prompts, rn.rank_neurons(table, recall), run)
        yield {
            "claims": bool(matrix["significant"].any()),
            "claims_by_facts_alone": bool((false_discovery(matrix["p_sign_flip"]) <= ALPHA).any()),
        }


def null_maximum_runs(kind: str, runs: int) -> Iterator[dict[str, object]]:
    """The largest AP under shuffled labels, against its permutation null."""
    for run in range(runs):
        _, prompts, recall, table = measured(kind, run % 10, run // 10 % 5)
        rng = np.random.default_rng([run, 0x6D6178])
        if kind == "random":
            recall = recall.assign(known=rng.random(len(recall)) < 0.8)
        _, table, recall = shuffled(prompts, table, recall, rng)
        null = null_maximum(table, recall, permutations=39, contrasts=("specific",), seed=run)
        for row in null.itertuples():
            yield {"claims": row.beyond > 0}


def power_runs(
    carried: float, runs: int, relations: int = RELATIONS
) -> Iterator[dict[str, object]]:
    """Planted models of another seed each, in which a share of the known facts needs the neurons."""
    for run in range(runs):
        source = rn.planted_model(relations=relations, carried=carried, seed=1000 + run)
        prompts = rn.make_prompts(
            source.relations, source.model.tokenizer, held_out=0.4, nonsense=0, seed=run
        )
        recall = rn.measure_recall(source.model, prompts)
        table = rn.collect_activations(source.model, prompts.detection)
        effects, home_draws, matrix = judge(source, prompts, rn.rank_neurons(table, recall), run)
        home = matrix[matrix["ablated"] == matrix["relation"]]
        overall = contrasts(effects, home_draws, dose=DOSE, matrix=matrix).query(
            "relation == 'all relations' and against == 'control_contribution'"
        )
        away = matrix[matrix["ablated"] != matrix["relation"]]
        yield {
            "home": float(home["effect"].mean()),
            "cells_found": float(home["significant"].mean()),
            "found": bool(overall["p_value"].item() <= ALPHA),
            "harm_elsewhere": bool((away["significant"] & (away["difference"] < 0)).any()),
        }


def table_of(runs: int) -> pd.DataFrame:
    """Every study, a row each: what, on what, how many, what was found, and the goal."""
    few = max(1, runs // 4)
    studies = [
        *((null_runs, kind, runs) for kind in ("planted", "random")),
        *((null_maximum_runs, kind, few) for kind in ("planted", "random")),
        (power_runs, 0.15, few, DEMO_RELATIONS),
        (power_runs, 0.7, few),
    ]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_study, studies))
    rows = []
    for kind, table in zip(("planted", "random"), found[:2], strict=True):
        what = f"any significant cell, labels shuffled, {kind} model"
        rows.append((what, len(table), table["claims"].mean(), "at most 5%"))
        alone = table["claims_by_facts_alone"].mean()
        rows.append((f"{what}, sign-flip test alone", len(table), alone, ""))
    for kind, table in zip(("planted", "random"), found[2:4], strict=True):
        what = f"neurons beyond chance, labels shuffled, {kind} model"
        rows.append((what, len(table), table["claims"].mean(), "about 5%"))
    for study, table in zip(studies[4:], found[4:], strict=True):
        relations = study[3] if len(study) > 3 else RELATIONS
        home = f"{table['home'].mean():.2f}".replace("-", "\N{MINUS SIGN}")
        where = f"{home}, {relations} relations"
        goal = "at least 90%" if relations == DEMO_RELATIONS else ""
        rows.append(
            (
                f"harm at home found over all relations, {where}",
                len(table),
                table["found"].mean(),
                goal,
            )
        )
        cells = table["cells_found"].mean()
        rows.append((f"single home cells found, {where}", relations * len(table), cells, ""))
        share = table["harm_elsewhere"].mean()
        rows.append((f"any harm claimed elsewhere, {where}", len(table), share, ""))
    return pd.DataFrame(rows, columns=["what", "runs", "share", "goal"])


def _study(study: tuple[Any, ...]) -> pd.DataFrame:
    torch.set_num_threads(1)
    found = pd.DataFrame(study[0](*study[1:]))
    print(study[0].__name__, study[1:], found.mean().to_dict(), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="the CSV, and the page's table")
    options = parser.parse_args()
    table = table_of(options.runs)
    print(table.to_string())
    if options.write:
        write("runs", {"runs": table})


if __name__ == "__main__":
    main()
