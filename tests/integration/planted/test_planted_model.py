"""The planted model: what it is by construction, and that the method finds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import relation_neurons as rn
from relation_neurons.backends.neuron_sites import weight_hash
from relation_neurons.planted.facts import NOUNS, SUBJECTS, split_words
from relation_neurons.planted.model import Planted, planted_model
from relation_neurons.planted.recovery import recovered, recovered_shared
from relation_neurons.relations.shipped import load_background

HELD_OUT = 0.5


@dataclass(frozen=True)
class Asked:
    """A planted model with its prompts and what it knows."""

    planted: Planted
    prompts: rn.Prompts
    recall: pd.DataFrame

    def rank(self, *, pool: str = "mean", order: str = "d_prime") -> rn.Ranking:
        table = rn.collect_activations(self.planted.model, self.prompts.detection, pool=pool)
        return rn.rank_neurons(table, self.recall, order=order)

    def without(self, neurons: pd.DataFrame) -> pd.DataFrame:
        """Held-out statements with the neurons ablated: relation, kind, known, margin, change."""
        held_out = self.prompts.held_out
        asked = held_out.take(held_out.frame["form"] == "statement")
        with rn.ablated(self.planted.model, neurons):
            after = rn.measure_recall(self.planted.model, asked, batch_size=256)
        before = self.recall.set_index("prompt_id").loc[asked.frame["prompt_id"]].reset_index()
        kinds = self.planted.facts[["relation", "subject", "kind"]]
        rows = after.merge(kinds, on=["relation", "subject"], validate="many_to_one")
        assert (rows["prompt_id"] == before["prompt_id"]).all()
        return rows.assign(intact=before["known"], change=rows["margin"] - before["margin"])


def ask(planted: Planted, *, single_template: bool = False, seed: int = 0) -> Asked:
    prompts = rn.make_prompts(
        planted.relations,
        planted.model.tokenizer,
        held_out=HELD_OUT,
        nonsense=0,
        single_template=single_template,
        seed=seed,
    )
    return Asked(planted, prompts, rn.measure_recall(planted.model, prompts))


@pytest.fixture(scope="module")
def asked():
    return ask(planted_model())


@pytest.fixture(scope="module")
def one_template():
    return ask(planted_model(), single_template=True)


@pytest.mark.parametrize(("seed", "templates"), [(0, 2), (1, 3), (2, 2), (3, 3), (4, 2)])
def test_the_default_setting_finds_what_is_planted(seed, templates):
    here = ask(planted_model(templates=templates, seed=seed), seed=seed)
    ranking = here.rank()
    for contrast in ("specific", "background"):
        found = recovered(ranking, here.planted.truth, contrast=contrast)
        assert list(found["relation"]) == [one.name for one in here.planted.relations]
        assert (found["precision"] >= 0.95).all() and (found["recall"] >= 0.95).all(), found
    shared = recovered_shared(ranking, here.planted.truth)
    pairs = shared[shared["planted"] > 0]
    assert len(pairs) == 2
    assert (pairs["precision"] >= 0.95).all() and (pairs["recall"] >= 0.95).all(), pairs
    assert (shared.loc[shared["planted"] == 0, "found"] == 0).all()


def test_precision_and_recall_against_brute_force(asked):
    ranking, truth = asked.rank(), asked.planted.truth
    row = recovered(ranking, truth, dose=20).set_index("relation").loc["capital"]
    role = truth.set_index(["layer", "neuron"])[["role", "relation"]]
    top = [role.loc[tuple(pair)] for pair in ranking.top("capital", 20)[["layer", "neuron"]].values]
    hits = sum(
        one["role"] in ("relation", "interfering") and one["relation"] == "capital" for one in top
    )
    assert (row["planted"], row["dose"]) == (12, 20)
    assert row["precision"] == hits / 20 and row["recall"] == hits / 12
    assert sum(int(part.split()[1]) for part in row["false"].split(", ")) == 20 - hits
    with pytest.raises(rn.errors.UnknownOptionError, match="No truth for 'nonsense'"):
        recovered(ranking, truth, contrast="nonsense")


def test_one_template_ranks_detectors_of_its_words(asked, one_template):
    """Pitfall 13: with one template, AP is 1 for a neuron that hears nothing but its noun."""
    truth = asked.planted.truth
    heard = {one.name: NOUNS[one.name][0] for one in asked.planted.relations}
    words = truth[(truth["role"] == "template") & (truth["other"] == truth["relation"].map(heard))]
    contrasts = {}
    for name, here in (("several", asked), ("one", one_template)):
        frame = here.rank().frame
        frame = frame[frame["score"] == "specific"]
        contrasts[name] = words.merge(frame, on=["layer", "neuron", "relation"])["ap"]
        assert len(contrasts[name]) == len(words) == 32
    assert contrasts["one"].mean() > 0.99
    assert contrasts["several"].max() < 0.9
    fooled = recovered(one_template.rank(), truth)
    assert fooled["precision"].mean() < 0.8
    assert fooled["false"].str.startswith("template").all()
    assert recovered(asked.rank(), truth)["precision"].min() >= 0.95


def test_a_pooled_first_position_makes_length_look_like_a_relation(one_template):
    """Pitfall 3: pooled with the first position, a sink neuron says how long the prompt is."""
    model, prompts = one_template.planted.model, one_template.prompts.detection
    truth = one_template.planted.truth
    sinks = truth[truth["role"] == "sink"]
    at = sinks["layer"].to_list(), sinks["neuron"].to_list()
    best = {}
    for pool in ("include_first", "mean"):
        table = rn.collect_activations(model, prompts, pool=pool)
        assert table.is_sink[at].all() and int(table.is_sink.sum()) == len(sinks)
        if pool == "include_first":
            inverse = 1 / np.array([len(tokens) for tokens in prompts.tokens])
            pooled = table.values[:, at[0], at[1]].numpy()
            assert min(abs(np.corrcoef(inverse, column)[0, 1]) for column in pooled.T) > 0.99
        frame = rn.rank_neurons(table, one_template.recall, order="index").frame
        frame = frame[frame["score"] == "specific"].merge(sinks[["layer", "neuron"]])
        best[pool] = frame.groupby("relation")["ap"].max()
    relations = one_template.planted.relations
    assert (best["include_first"][[relations[0].name, relations[3].name]] == 1.0).all()
    assert (best["mean"] < 0.7).all()
    fooled = recovered(one_template.rank(pool="include_first", order="index"), truth)
    assert fooled["false"].str.contains("sink").sum() >= 2
    assert not recovered(one_template.rank(), truth)["false"].str.contains("sink").any()


def test_specific_sets_share_nothing_though_shared_neurons_exist(asked):
    """Pitfall 21: sets ranked against one another are disjoint, so versatility is not read there."""
    ranking, truth = asked.rank(), asked.planted.truth
    pairs = recovered_shared(ranking, truth, contrast="specific")
    assert (pairs["planted"] > 0).sum() == 2 and (pairs["found"] == 0).all()
    pairs = recovered_shared(ranking, truth)
    assert (pairs.loc[pairs["planted"] > 0, "recall"] == 1.0).all()
    cells = rn.overlap_matrix(ranking, dose=12).set_index(["relation", "other"])["shared"]
    assert cells["currency", "meal"] == 4 and cells["capital", "currency"] == 0


def test_the_paper_setting_is_fooled():
    here = ask(planted_model(templates=1), single_template=True)
    found = recovered(here.rank(pool="include_first", order="index"), here.planted.truth)
    assert found["recall"].mean() < 0.5
    assert set(" ".join(found["false"]).replace(",", "").split()) >= {"template", "sink", "noise"}


def test_ablation_breaks_the_carried_facts_of_the_relation_and_nothing_else(asked):
    for relation in asked.planted.relations:
        rows = asked.without(asked.planted.neurons(relation.name))
        home = rows["relation"] == relation.name
        carried = home & (rows["kind"] == "carried")
        assert rows.loc[carried, "intact"].all() and not rows.loc[carried, "known"].any()
        assert (rows.loc[~carried, "known"] == rows.loc[~carried, "intact"]).all()


def test_half_of_the_neurons_have_an_effect_in_between(asked):
    for relation in asked.planted.relations:
        neurons = asked.planted.neurons(relation.name)
        home = [
            rows[rows["relation"] == relation.name]
            for rows in (
                asked.without(part) for part in (neurons.iloc[:2], neurons.iloc[::2], neurons)
            )
        ]
        quarter, half, whole = (rows["change"].mean() for rows in home)
        assert 0 > quarter > half > whole
        assert 0.3 < half / whole < 0.7
        assert home[0]["known"].sum() >= home[1]["known"].sum() > home[2]["known"].sum()


def test_no_single_neuron_carries_a_relation(asked):
    truth = asked.planted.truth
    for role in ("relation", "shared", "interfering"):
        for row in truth.index[truth["role"] == role]:
            rows = asked.without(truth.loc[[row]])
            assert (rows["known"] == rows["intact"]).all(), truth.loc[row].to_dict()


def test_distractors_do_nothing(asked):
    truth = asked.planted.truth
    acting = truth["role"].isin(["relation", "shared", "interfering"])
    rows = asked.without(truth[~acting])
    assert (rows["known"] == rows["intact"]).all()
    assert rows["change"].abs().max() < 0.2
    loud = rn.collect_activations(asked.planted.model, asked.prompts.detection).contribution
    loud = pd.Series(loud.flatten().numpy()).groupby(truth["role"]).mean()
    assert loud["loud"] > 50 * loud["relation"]


def test_interference_improves_the_planted_place_and_no_other(asked):
    effects = rn.ablation_sweep(
        asked.planted.model, asked.prompts.held_out, asked.rank(), (12,), control_draws=1
    )
    matrix = rn.interference_matrix(effects, dose=12).set_index(["ablated", "relation"])
    better = matrix[matrix["effect"] > 0]
    assert list(better.index) == [("capital", "meal")]
    assert better["low"].item() < better["effect"].item() < better["high"].item()
    hindered = asked.planted.facts.query("kind == 'hindered'")
    assert set(hindered["relation"]) == {"meal"} and set(hindered["other"]) == {"capital"}
    held_out = asked.prompts.held_out.frame
    freed = held_out[
        (held_out["relation"] == "meal") & held_out["subject"].isin(hindered["subject"])
    ]
    assert better["effect"].item() == pytest.approx(
        len(freed) / (held_out["relation"] == "meal").sum()
    )
    rows = asked.without(asked.planted.neurons("capital", "interfering"))
    freed_ids = set(rows.loc[rows["known"] & ~rows["intact"], "prompt_id"])
    assert freed_ids == set(freed.loc[freed["form"] == "statement", "prompt_id"])
    away = matrix[matrix.index.get_level_values(0) != matrix.index.get_level_values(1)]
    assert (away["effect"] >= 0).all()


@pytest.mark.parametrize("carried", [0.0, 0.5, 1.0])
def test_carried_is_the_share_of_known_facts_that_need_the_neurons(carried):
    here = ask(planted_model(carried=carried, seed=1))
    for relation in here.planted.relations:
        rows = here.without(here.planted.neurons(relation.name))
        home = rows[rows["relation"] == relation.name]
        lost = home["intact"].mean() - home["known"].mean()
        expected = (home["kind"] == "carried").mean()
        assert lost == pytest.approx(expected)
        assert lost == pytest.approx(carried * home["intact"].mean(), abs=0.2)
    kinds = here.planted.facts["kind"].value_counts(normalize=True)
    known = kinds.get("carried", 0) + kinds.get("direct", 0)
    assert kinds.get("carried", 0) / known == pytest.approx(carried, abs=0.02)


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_unknown_facts_are_answered_wrongly_in_every_template(unknown):
    here = ask(planted_model(unknown=unknown, seed=2))
    rows = here.recall.merge(here.planted.facts, on=["relation", "subject"])
    assert (rows["known"] == rows["kind"].isin(["carried", "direct"])).all()
    share = (here.planted.facts["kind"] == "unknown").mean()
    assert share == pytest.approx(unknown, abs=0.01)


def test_logits_agree_with_plain_hugging_face(tmp_path):
    planted = planted_model(tmp_path / "kept", seed=5)
    assert planted.folder == tmp_path / "kept"
    plain = AutoModelForCausalLM.from_pretrained(planted.folder)
    tokenizer = AutoTokenizer.from_pretrained(planted.folder)
    texts = [t.fill(r.facts[3].subject) for r in planted.relations for t in r.templates]
    for text in [*texts, load_background("en")[5][0], "the unheard of"]:
        tokens = tokenizer(text, return_tensors="pt")["input_ids"]
        assert tokens[0, 0] == tokenizer.bos_token_id
        with torch.inference_mode():
            expected, found = plain(tokens).logits, planted.model(tokens)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    again = rn.load_model(planted.folder)
    assert weight_hash(again) == weight_hash(planted.model)


def test_nothing_is_left_behind_and_the_same_seed_gives_the_same_bytes(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first, again, other = planted_model(seed=7), planted_model(seed=7), planted_model(seed=8)
    assert list(tmp_path.iterdir()) == [] and first.folder is None
    assert weight_hash(first.model) == weight_hash(again.model) != weight_hash(other.model)
    assert first.truth.equals(again.truth) and first.facts.equals(again.facts)
    assert first.relations == again.relations
    assert not first.truth.equals(other.truth)
    assert str(tmp_path) not in str(first.model.cfg.model_name)


def test_words_tell_a_relation_only_by_its_own_nouns():
    planted = planted_model(relations=8)
    heard = {word for text, _ in load_background("en") for word in split_words(text)}
    nouns = [word for words in NOUNS.values() for word in words]
    assert len(set(nouns)) == len(nouns) == 40 and not set(nouns) & heard
    assert set(SUBJECTS) <= heard and len(set(SUBJECTS)) == 60
    for relation in planted.relations:
        detection, held_out = (
            {w for t in relation.templates_of(side) for w in split_words(t.text)} & set(nouns)
            for side in ("detection", "held_out")
        )
        assert not detection & held_out and len(detection) == 3 and len(held_out) == 2
        assert {t.form for t in relation.templates_of("detection")} == {"statement", "question"}
    unknown_token = planted.model.tokenizer.unk_token_id
    texts = [text for text, _ in load_background("en")]
    texts += [t.fill("France") for r in planted.relations for t in r.templates]
    assert unknown_token not in {
        i for ids in planted.model.tokenizer(texts)["input_ids"] for i in ids
    }


@pytest.mark.parametrize(
    ("least", "options"),
    [
        (0.95, {"relations": 2}),
        (0.95, {"relations": 3, "neurons": 4}),
        (0.95, {"relations": 8, "subjects": 30, "neurons": 12}),
        (0.95, {"subjects": 24, "unknown": 0.0, "templates": 2}),
        (0.95, {"distractors": False}),
    ],
)
def test_other_sizes_are_found_too(least, options):
    """Against one or two other relations, noise that hears an adjective reaches an AP of 1 as well."""
    here = ask(planted_model(**options))
    roles = set(here.planted.truth["role"])
    assert ("sink" in roles) == options.get("distractors", True)
    ranking = rn.rank_neurons(
        rn.collect_activations(here.planted.model, here.prompts.detection), here.recall, min_known=5
    )
    assert recovered(ranking, here.planted.truth)["recall"].min() >= least
    for relation in here.planted.relations:
        rows = here.without(here.planted.neurons(relation.name))
        carried = (rows["relation"] == relation.name) & (rows["kind"] == "carried")
        assert not rows.loc[carried, "known"].any()
        assert (rows.loc[~carried, "known"] == rows.loc[~carried, "intact"]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"relations": 1},
        {"relations": 9},
        {"subjects": 61},
        {"templates": 4},
        {"carried": 1.5},
        {"seed": -1},
    ],
)
def test_a_number_outside_its_range_is_refused(options, as_a_user):
    (name,) = options
    with pytest.raises(rn.errors.UnknownOptionError, match=f"{name} is"):
        planted_model(**options)


def test_an_unknown_relation_is_refused_by_name(asked):
    with pytest.raises(rn.errors.UnknownRelationError, match="Did you mean capital"):
        asked.planted.neurons("captial")
    assert repr(asked.planted).startswith("Planted(capital, language, currency, meal; 672 neurons")
    assert isinstance(replace(asked.planted, folder=Path("x")).folder, Path)
