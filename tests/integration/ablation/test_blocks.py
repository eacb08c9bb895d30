"""Blocks of a ranking, ablated alone and together, on the tiny models."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

import relation_neurons as rn
from helpers import bilingual
from relation_neurons.ablation.sweep import ablation_sweep, block_sweep
from relation_neurons.analysis.cumulativity import joint_effect
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError
from relation_neurons.inference.recall import answer_prompts, plan_passes


@pytest.fixture(scope="module")
def blocks(model, prompts, ranking):
    return block_sweep(model, prompts.held_out, ranking, 4, blocks=3, control_draws=1)


def test_all_blocks_at_once_are_the_sweeps_own_set(model, prompts, ranking, blocks):
    """Block 0 is the ranked set, and its control, at the dose of all blocks together."""
    sweep = ablation_sweep(
        model,
        prompts.held_out,
        ranking,
        (12,),
        control_draws=1,
        control_kinds=("control_contribution",),
    )
    home = sweep[sweep["relation"].astype(str) == sweep["ablated"].astype(str)]
    joint = blocks[blocks["block"] == 0].drop(columns="block")
    spread = ["layer_share", "draw_overlap"]  # of a sweep's control, which is judged by rank
    assert list(joint.columns) == list(sweep.columns.drop(spread))
    keys = ["ablated", "kind", "prompt_id"]
    home, joint = (
        table.astype({"ablated": str, "kind": str}).sort_values(keys).reset_index(drop=True)
        for table in (home, joint)
    )
    same = [*keys, "dose", "draw", "correct", "correct_intact", "predicted"]
    pd.testing.assert_frame_equal(home[same], joint[same])
    for column in ("margin", "margin_intact", "logprob"):
        pd.testing.assert_series_equal(home[column], joint[column], atol=1e-4)


def test_each_block_is_its_own_ranks(model, prompts, ranking, blocks):
    relation = ranking.relations[0]
    home = prompts.held_out.take(
        (prompts.held_out.frame["relation"] == relation)
        & (prompts.held_out.frame["kind"] == "fact")
    )
    ranked = ranking.top(relation, 12)
    for block in (1, 2, 3):
        neurons = ranked.iloc[4 * (block - 1) : 4 * block]
        with rn.ablated(model, neurons) as ablation:
            expected = answer_prompts(model, plan_passes(home), before_batch=ablation.start)
        found = blocks[
            (blocks["ablated"].astype(str) == relation)
            & (blocks["kind"].astype(str) == "ranked")
            & (blocks["block"] == block)
        ]
        assert found["prompt_id"].tolist() == home.frame["prompt_id"].tolist()
        assert (found["dose"] == 4).all()
        assert found["margin"].to_numpy() == pytest.approx(expected.margin, abs=1e-4)


def test_the_table_has_a_row_per_home_prompt_set_and_block(ranking, blocks):
    assert (blocks["relation"].astype(str) == blocks["ablated"].astype(str)).all()
    sizes = blocks.groupby(["ablated", "kind", "block"], observed=True)["prompt_id"].nunique()
    assert len(sizes) == len(ranking.relations) * 2 * 4
    assert not blocks.duplicated(["ablated", "kind", "block", "prompt_id"]).any()
    rows = joint_effect(blocks)
    assert len(rows) == len(ranking.relations) * 2
    assert (rows["size"] == 4).all() and (rows["blocks"] == 3).all()


def test_no_single_block_of_planted_neurons_carries_the_relation(tmp_path_factory):
    """Four equal neurons ask for the relation: half of them do, and without all four no fact is left."""
    folder = bilingual.checkpoint(tmp_path_factory.mktemp("blocks") / "model")
    model = rn.load_model(folder, device="cpu")
    made = rn.make_prompts(bilingual.relations(), model.tokenizer, held_out=0.4, seed=0)
    recall = rn.measure_recall(model, made)
    ranking = rn.rank_neurons(rn.collect_activations(model, made.detection), recall)
    for language in ("en", "de"):
        top = ranking.top("river", 4, language=language)
        assert set(top["neuron"]) == bilingual.planted("river", language)
    table = block_sweep(model, made.held_out, ranking, 2, blocks=2, control_draws=2)
    assert (table["language"].astype(str) == table["ablated_language"].astype(str)).all()
    flips = joint_effect(table, quantity="correct").set_index("kind")
    assert (flips.loc["ranked", ["joint", "difference"]] == -1).all(axis=None)
    assert (flips.loc["ranked", ["block_1", "block_2", "sum_of_blocks"]] == 0).all(axis=None)
    assert (flips.loc["control_contribution", "joint"] == 0).all()
    margins = joint_effect(table).set_index("kind")
    assert (margins.loc["ranked", "high"] < 0).all()


def test_what_cannot_be_ablated_is_refused(model, prompts, ranking):
    held_out = prompts.held_out
    only_background = replace(ranking, frame=ranking.frame[ranking.frame["score"] == "background"])
    with pytest.raises(DoseError, match="two or more"):
        block_sweep(model, held_out, ranking, 4, blocks=1)
    with pytest.raises(DoseError, match="this model has 192"):
        block_sweep(model, held_out, ranking, 100, blocks=2)
    with pytest.raises(DoseError, match="no held-out prompt"):
        block_sweep(model, held_out.take(held_out.frame["kind"] == "nonsense"), ranking, 4)
    with pytest.raises(UnknownOptionError, match="needs a value"):
        block_sweep(model, held_out, ranking, 4, mode="scale")
    with pytest.raises(UnknownOptionError, match="Did you mean specific"):
        block_sweep(model, held_out, ranking, 4, contrast="specifik")
    with pytest.raises(TooFewFactsError, match="No relation has a ranking"):
        block_sweep(model, held_out, only_background, 4)
