"""Neuron cards against plain Hugging Face, the full activation table and ablation by hand."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from rich.console import Console
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import relation_neurons as rn
from relation_neurons.activations.collect import collect_neuron
from relation_neurons.activations.pooling import POOLS
from relation_neurons.backends.neuron_sites import logit_weights, output_direction
from relation_neurons.cli import app as command_line
from relation_neurons.cli.neuron import neuron as neuron_command
from relation_neurons.errors import AblationError, ResultsError, UnknownOptionError
from relation_neurons.inference.recall import answer_prompts, plan_passes
from relation_neurons.report.build_card import neuron_card, pool_tokens

HOSTILE = '<script>alert("x")</script> [bold]&[/]'


@pytest.fixture(scope="module")
def first(ranking):
    """The best neuron of a relation."""
    row = ranking.top("country_food", 1).iloc[0]
    return int(row["layer"]), int(row["neuron"])


@pytest.fixture(scope="module")
def card(model, prompts, recall, ranking, first):
    return neuron_card(model, first, prompts, recall=recall, ranking=ranking, min_known=5)


def test_promoted_tokens_are_those_of_the_full_unembedding(card, model, tiny_folder, first):
    """Plain Hugging Face: its final norm and head, on the neuron's output as the whole stream."""
    layer, neuron = first
    hf_model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    norm, head = hf_model.model.norm, hf_model.lm_head
    direction = hf_model.model.layers[layer].mlp.down_proj.weight[:, neuron].detach()
    assert norm.weight.std() > 1e-3  # a norm that does nothing would not be seen to be left out
    with torch.inference_mode():
        scale = (direction.square().mean() + norm.variance_epsilon).sqrt()
        logits = head(norm(direction[None]))[0] * scale
    np.testing.assert_allclose(
        logit_weights(model, output_direction(model, layer, neuron)), logits, atol=1e-5
    )
    for found, largest in ((card.promoted, True), (card.demoted, False)):
        ids = found["token_id"].tolist()
        assert len(set(ids)) == 10
        # Two logits closer than the arithmetic is exact may change places, and nothing else may.
        np.testing.assert_allclose(found["weight"], logits[ids], atol=1e-5)
        np.testing.assert_allclose(found["weight"], logits.topk(10, largest=largest)[0], atol=1e-5)
        assert [t.strip() for t in found["token"]] == [spelled(model.tokenizer, i) for i in ids]


def spelled(tokenizer, token):
    """What plain transformers decodes, or the vocabulary's spelling where it is part of a character."""
    text = tokenizer.decode([token])
    return tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else text.strip()


def test_pitfall_15_the_direction_is_the_neurons_at_gate_and_up_and_a_dimension_at_out(model):
    """Pitfall 15: one neuron at three sites; `out` is no neuron."""
    post = output_direction(model, 1, 7)
    assert torch.equal(post, output_direction(model, 1, 7, "gate"))
    assert torch.equal(post, output_direction(model, 1, 7, "up"))
    assert output_direction(model, 1, 7, "out").nonzero().tolist() == [[7]]


@pytest.mark.parametrize("site", ["post", "gate", "up", "out"])
def test_one_neurons_activations_are_its_column_of_the_table(model, prompts, site):
    """Pitfall 2: whatever the batch size. The hooks of both are gone afterwards."""
    asked = prompts.detection.take(np.arange(len(prompts.detection)) % 4 == 0)
    tables = {how: rn.collect_activations(model, asked, pool=how, site=site) for how in POOLS}
    for layer, neuron, batch_size in ((0, 3, 64), (1, 40, 64), (1, 40, 7), (1, 40, 1)):
        by_token = collect_neuron(model, asked, layer, neuron, site=site, batch_size=batch_size)
        assert [len(values) for values in by_token] == [len(t) for t in asked.tokens]
        for how, table in tables.items():
            np.testing.assert_allclose(
                pool_tokens(by_token, how), table.values[:, layer, neuron], atol=1e-5
            )
    assert not any(point._forward_hooks for point in model.hook_dict.values())


def test_demonstrations_are_not_pooled(model, relations):
    made = rn.make_prompts(relations, model.tokenizer, held_out=0.4, nonsense=0, shots=2)
    assert any(made.context)
    asked = made.detection
    table = rn.collect_activations(model, asked)
    found = pool_tokens(collect_neuron(model, asked, 1, 40), "mean", asked.context)
    np.testing.assert_allclose(found, table.values[:, 1, 40], atol=1e-5)


def test_a_card_says_what_the_table_and_the_ranking_say(card, table, ranking, first):
    layer, neuron = first
    assert card.name == f"L{layer}N{neuron}" and card.score == "specific"
    assert card.mean == pytest.approx(float(table.mean[first]), abs=1e-5)
    assert card.contribution == pytest.approx(float(table.contribution[first]), rel=1e-4)
    assert card.is_sink == bool(table.is_sink[first])
    values = table.values[:, layer, neuron].numpy()
    at = pd.Series(values, index=table.prompts["prompt_id"])
    for found, end in ((card.highest, -np.sort(-values)[:8]), (card.lowest, np.sort(values)[:8])):
        assert found["prompt_id"].is_unique
        np.testing.assert_allclose(found["activation"], at[found["prompt_id"]], atol=1e-5)
        np.testing.assert_allclose(found["activation"], end, atol=1e-5)
        assert ["".join(tokens) for tokens in found["tokens"]] == found["text"].tolist()
    ranked = ranking.frame[(ranking.frame["layer"] == layer) & (ranking.frame["neuron"] == neuron)]
    both = card.relations.merge(ranked, on=["score", "relation", "language"], suffixes=("", "_r"))
    assert len(both) == len(card.relations) == len(ranked) > 3
    for column in ("ap", "d_prime", "mean_positive", "mean_negative", "rank"):
        np.testing.assert_allclose(
            both[column].astype(float), both[f"{column}_r"].astype(float), atol=1e-4
        )
    own = card.relations.set_index(["score", "relation"])["rank"]
    assert own["specific", "country_food"] == 1


def test_below_the_end_of_a_ranking_there_is_no_rank(model, prompts, recall, table, first):
    short = rn.rank_neurons(table, recall, min_known=5, keep=1)
    found = neuron_card(
        model, first, prompts, recall=recall, ranking=short, min_known=5, ablate=False
    )
    assert found.relations["rank"].isna().any() and found.relations["rank"].notna().any()
    assert "<td>\N{EN DASH}</td>" in found.to_html()


def test_the_effects_are_those_of_ablating_it_by_hand(card, model, prompts, recall, first):
    held_out = prompts.held_out
    with rn.ablated(model, [first]):
        after = answer_prompts(model, plan_passes(held_out))
    intact = recall.set_index("prompt_id").loc[held_out.frame["prompt_id"]]
    assert set(card.effects["relation"]) == set(held_out.frame["relation"])
    for row in card.effects.itertuples():
        here = (held_out.frame["relation"] == row.relation).to_numpy()
        change = after.margin[here] - intact["margin"][here]
        assert row.n == here.sum()
        per_fact = pd.Series(change).groupby(held_out.frame["fact"][here].to_numpy()).mean()
        assert row.margin_change == pytest.approx(per_fact.median(), abs=1e-4)
        assert row.margin_low <= row.margin_change <= row.margin_high
        flips = after.correct[here].astype(int) - intact["known"][here].astype(int)
        assert (row.won, row.lost) == ((flips > 0).sum(), (flips < 0).sum())
        assert row.net_flips == pytest.approx(flips.mean())
    assert (card.effects["margin_change"].abs() > 1e-3).any()
    assert card.ablation == {"mode": "zero", "positions": "no_first"}
    assert len(card.to_frame()) == 3 and card.to_frame()["ap"].is_monotonic_decreasing


def test_pitfall_20_a_card_leaves_no_hook_behind(card, model):
    """Pitfall 20: hooks and the forward pass are as they were."""
    assert not any(point._forward_hooks for point in model.hook_dict.values())
    assert "forward" not in vars(model)


def test_prompts_alone_are_enough(model, prompts, card, first):
    """Recall is measured, the sink looked for among all neurons, and no rank is known."""
    alone = neuron_card(model, card.name, prompts, min_known=5, top=3, tokens=4)
    assert alone.relations.drop(columns="rank").equals(card.relations.drop(columns="rank"))
    assert alone.effects.equals(card.effects) and alone.is_sink == card.is_sink
    assert alone.relations["rank"].isna().all()
    assert (len(alone.highest), len(alone.promoted)) == (3, 4)
    unablated = neuron_card(model, card.name, prompts, min_known=5, ablate=False)
    assert unablated.effects is None and "margin change" not in unablated.to_html()
    assert "margin change" in card.to_html()


def test_pitfall_17_the_same_card_twice_is_the_same_bytes(
    card, model, prompts, recall, ranking, first
):
    """Pitfall 17: nothing on it is drawn."""
    again = neuron_card(model, first, prompts, recall=recall, ranking=ranking, min_known=5)
    assert again.to_html(page=True) == card.to_html(page=True)


def test_pitfall_3_a_sink_is_flagged(model, prompts, recall, ranking):
    """Pitfall 3: flagged in the page and in the terminal."""
    marked = replace(ranking, neurons=ranking.neurons.assign(is_sink=True))
    found = neuron_card(
        model, "L0N3", prompts, recall=recall, ranking=marked, min_known=5, ablate=False
    )
    assert "sink neuron</span>" in found.to_html() and "a sink neuron" in printed(found)


def printed(card, width=160):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(card.table())
    return console.export_text()


def test_what_comes_from_data_stays_text(card):
    """A hostile token, subject, relation and model name, in the page and in the terminal."""
    bad_prompts = card.highest.assign(
        text=f"{HOSTILE} [red]prompt[/]",
        subject=HOSTILE,
        relation=HOSTILE,
        tokens=[[HOSTILE] * len(t) for t in card.highest["tokens"]],
    )
    bad = replace(
        card,
        model=HOSTILE,
        promoted=card.promoted.assign(token=HOSTILE),
        highest=bad_prompts,
        relations=card.relations.assign(relation=HOSTILE),
        effects=card.effects.assign(relation=HOSTILE).head(1),
    )
    for page in (bad.to_html(page=True), bad._repr_html_()):
        assert "<script" not in page and "&lt;script&gt;" in page
        assert 'title="<' not in page
    shown = printed(bad, 600)
    assert shown.count("[bold]&[/]") == 1 + 10 + 3 + 3 + 3  # model, tokens, prompts twice, table
    assert shown.count("[red]prompt[/]") == 3


def test_the_card_is_self_contained(card):
    """Nothing is fetched and nothing is run; as a page it is a whole document."""
    assert not re.search(r"<script|<link|@import|url\(|src=|https?:", card.to_html())
    assert card.to_html(page=True).lstrip().startswith("<!DOCTYPE html>")
    assert not card.to_html().lstrip().startswith("<!DOCTYPE")
    assert repr(card).startswith(f"NeuronCard({card.name} of ") and len(repr(card)) < 200


def test_what_cannot_be_carded_says_why(model, prompts, recall, ranking):
    kwargs = {"recall": recall, "ranking": ranking}
    with pytest.raises(AblationError, match="L16N302"):
        neuron_card(model, "neuron 3", prompts, **kwargs)
    with pytest.raises(AblationError, match="L2N0 does not exist: this model has layers 0 to 1"):
        neuron_card(model, "L2N0", prompts, **kwargs)
    with pytest.raises(UnknownOptionError, match="top is 0"):
        neuron_card(model, "L0N0", prompts, top=0, **kwargs)
    with pytest.raises(UnknownOptionError, match="tokens is 0"):
        neuron_card(model, "L0N0", prompts, tokens=0, **kwargs)
    other = replace(ranking, neurons=ranking.neurons.assign(mean=ranking.neurons["mean"] + 1))
    with pytest.raises(ResultsError, match="Load the model that the ranking was made with"):
        neuron_card(model, "L0N0", prompts, recall=recall, ranking=other)
    short = replace(ranking, neurons=ranking.neurons.head(96))
    with pytest.raises(ResultsError, match="a model with 96 post neurons; this one has 192"):
        neuron_card(model, "L0N0", prompts, recall=recall, ranking=short)


@pytest.fixture(scope="module")
def folder(model, relations, tmp_path_factory):
    """A finished run of the tiny model."""
    out = tmp_path_factory.mktemp("run") / "results"
    rn.run(
        model,
        relations,
        out=out,
        held_out=0.4,
        nonsense=6,
        min_known=5,
        doses=(3,),
        draws=1,
        checks=(),
        mode="mean",
    )
    return out


def test_saved_results_give_the_card_of_their_own_options(model, folder):
    results = rn.load_results(folder)
    top = results.ranking.top("country_food", 1).iloc[0]
    found = neuron_card(model, (int(top["layer"]), int(top["neuron"])), results)
    own = found.to_frame().set_index("relation")["rank"]
    assert own["country_food"] == 1 and found.ablation["mode"] == "mean"
    with pytest.raises(ResultsError, match="were not saved"):
        neuron_card(model, "L0N0", replace(results, folder=None))


def command(monkeypatch, capsys, *args):
    """Runs `neuron` as the shell would: exit code, what it printed, what it complained about."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(neuron_command)
    app.command("other")(lambda: None)
    monkeypatch.setattr(command_line, "app", app)
    monkeypatch.setattr(sys, "argv", ["relation-neurons", "neuron", *map(str, args)])
    code = 0
    try:
        command_line.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_prints_a_card_and_writes_a_page(folder, tmp_path):
    app = typer.Typer()
    app.command()(neuron_command)
    page = tmp_path / "cards" / "card.html"
    done = CliRunner().invoke(app, ["L1N7", "--out", str(folder), "--html", str(page)])
    assert done.exit_code == 0, done.output
    for part in ("L1N7 of", "promotes", "Most positive", "Most negative", "Detection", "margin"):
        assert part in done.output
    assert page.read_text(encoding="utf-8").lstrip().startswith("<!DOCTYPE html>")
    quick = CliRunner().invoke(app, ["L1N7", "--out", str(folder), "--no-ablate", "--top", "2"])
    assert quick.exit_code == 0 and "margin change" not in quick.output


def test_the_command_makes_prompts_where_there_is_no_folder(
    tiny_folder, relations, tmp_path, monkeypatch, capsys
):
    source = tmp_path / "relations.csv"
    rn.save_relations(relations, source)
    code, out, err = command(
        monkeypatch, capsys, "l1n7", "--model", tiny_folder, "--relations", source, "--held-out",
        "0.4", "--min-known", "5", "--top", "2", "--device", "cpu",
    )  # fmt: skip
    assert (code, err) == (0, "") and "country_food" in out


def test_the_commands_errors_are_one_line_and_exit_code_2(folder, tmp_path, monkeypatch, capsys):
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    manifest = (other / "manifest.json").read_text(encoding="utf-8")
    changed = re.sub(r'("weight_hash": )"\w+"', r'\1"0"', manifest)
    (other / "manifest.json").write_text(changed, encoding="utf-8")
    for args, match in (
        (("N3", "--out", folder), "is not the name of a neuron; expected the form L16N302"),
        (("L9N3", "--out", folder), "L9N3 does not exist: this model has layers 0 to 1"),
        (("L0N3", "--out", bare), "has no prompts.parquet"),
        (("L0N3", "--out", tmp_path / "nowhere"), "has no manifest.json"),
        (("L0N3", "--out", other), "the weights differ"),
        (("L0N3", "--out", folder, "--relations", "demo", "--held-out", "9"), "--relations, --held-out"),
        (("L0N3", "--out", folder, "--top", "0"), "top is 0"),
        (("L0N3", "--held-out", "nan"), "held_out is nan"),
        (("L0N3", "--relations", "no_such"), "no_such"),
    ):  # fmt: skip
        code, out, err = command(monkeypatch, capsys, *args)
        assert code == 2 and err.count("\n") == 1 and match in err, (args, code, out, err)
        assert "Traceback" not in err
