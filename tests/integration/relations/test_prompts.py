"""Prompts and their answers' tokens, few-shot prompts, held-out templates, and facts left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import relation_neurons as rn
from helpers import tiny
from relation_neurons.activations.pooling import pool
from relation_neurons.errors import AnswerError, TemplateError, TooFewFactsError
from relation_neurons.experiment.opening import choose_facts
from relation_neurons.relations.prompts import answer_tokens
from relation_neurons.relations.relation import Fact, Relation, Template
from relation_neurons.relations.selection import draw_facts, drop_copied, limit_objects
from relation_neurons.relations.split import choose_templates
from relation_neurons.results.options import make_options

TOKENIZERS = {
    "byte-level": tiny.byte_level_tokenizer(),
    "SentencePiece": tiny.sentencepiece_tokenizer(),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("shots", [1, 3])
def test_shots_are_solved_detection_facts_the_same_in_every_prompt(kind, shots):
    tokenizer = TOKENIZERS[kind]
    relations = tiny.relations()
    plain = rn.make_prompts(relations, tokenizer, held_out=8, nonsense=3)
    made = rn.make_prompts(relations, tokenizer, held_out=8, nonsense=3, shots=shots)
    for relation in relations:
        here = made.frame[made.frame["relation"] == relation.name]
        answers = {fact.subject: fact.objects[0] for fact in relation.facts}
        shown = None
        for row in here.itertuples():
            *lines, last = row.text.split("\n")
            assert last == row.template.replace("{}", row.subject) and len(lines) == shots
            start, end = row.template.split("{}")
            subjects = [line[len(start) :].partition(f"{end} ")[0] for line in lines]
            assert lines == [f"{start}{s}{end} {answers[s]}" for s in subjects]
            shown = shown or subjects
            assert subjects == shown
        before = plain.frame[plain.frame["relation"] == relation.name]
        detect = set(
            before[(before["side"] == "detection") & (before["kind"] == "fact")]["subject"]
        )
        assert set(shown) <= detect
        assert not set(shown) & set(here["subject"])  # they are asked nowhere


@pytest.mark.parametrize("kind", ["byte-level", "SentencePiece"])
@pytest.mark.parametrize("language", ["zh", "ja", "de", "fr"])
def test_pitfall_5_answers_continue_their_prompt_in_every_script(kind, language):
    """Without spaces between words too: nothing is lost, added or spaced at the seam."""
    relations = rn.load_relations("country_capital,element_symbol", languages=language)
    whole = [
        t.fill(f.subject) + t.separator + o
        for r in relations
        for t in r.templates
        for f in r.facts
        for o in f.objects
    ]
    tokenizer = tiny.trained_tokenizer(whole, kind)
    made = rn.make_prompts(relations, tokenizer, held_out=10, nonsense=0, background=False)
    accepted = {(r.name, f.subject): f.objects for r in relations for f in r.facts}
    separator = relations[0].templates[0].separator
    for row, tokens, answers in zip(
        made.frame.itertuples(), made.tokens, made.answers, strict=True
    ):
        texts = [
            tokenizer.decode([*tokens, *answer], skip_special_tokens=True) for answer in answers
        ]
        stated = {row.text + separator + o for o in accepted[row.relation, row.subject]}
        if '"' in row.template:
            stated = {row.text + o for o in accepted[row.relation, row.subject]}
        assert {text.strip() for text in texts} == {text.strip() for text in stated}
        assert all(answer and tokenizer.bos_token_id not in answer for answer in answers)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_context_is_the_demonstrations_tokens_and_no_more(kind):
    tokenizer = TOKENIZERS[kind]
    made = rn.make_prompts(tiny.relations(), tokenizer, held_out=8, nonsense=3, shots=2)
    for row, tokens, count in zip(made.frame.itertuples(), made.tokens, made.context, strict=True):
        head, _, last = row.text.rpartition("\n")
        rest = tokenizer.decode(list(tokens[count:])).strip()
        if row.kind == "fact":  # a nonsense subject may hold a letter that the tokenizer never saw
            assert rest == last.strip()
        assert 0 < count < len(tokens) and head


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_pitfall_13_neutral_prompts_have_the_relations_examples_in_front(kind):
    """Or the few-shot form would tell every relation from no relation, and be shared by all of them."""
    tokenizer, relations = TOKENIZERS[kind], tiny.relations()
    how = {"held_out": 8, "nonsense": 3}
    plain, made, other = (
        rn.make_prompts(relations, tokenizer, **how, shots=shots, seed=seed)
        for shots, seed in ((0, 0), (2, 0), (2, 1))
    )
    fact, neutral = (made.frame["kind"] == name for name in ("fact", "background"))
    contexts = made.frame["text"].str.rpartition("\n")[0] + "\n"
    own = contexts[fact & (made.frame["side"] == "detection")]
    counts = contexts[neutral].value_counts()
    assert set(counts.index) == set(own) and len(counts) >= 2 * len(relations)
    assert counts.max() - counts.min() <= 1
    frame = made.frame[neutral]
    assert (frame["text"] == contexts[neutral] + frame["template"]).all()
    forms = frame.groupby(contexts[neutral])["form"].nunique()
    assert (forms > 1).all(), "the form of a neutral prompt goes with no relation's examples"
    before = plain.frame[plain.frame["kind"] == "background"]
    assert frame["template"].tolist() == before["text"].tolist() == before["template"].tolist()
    again = rn.make_prompts(relations, tokenizer, **how, shots=2, seed=0)
    assert again.frame["text"].tolist() == made.frame["text"].tolist()
    assert set(other.frame["template"]) == set(made.frame["template"])


def test_a_figure_says_that_solved_examples_were_shown(model, tmp_path):
    """And a saved run still knows it."""
    asked = {"held_out": 8, "nonsense": 0}
    for shots in (0, 2):
        made = rn.make_prompts(tiny.relations(), model.tokenizer, **asked, shots=shots)
        recall = rn.measure_recall(model, made).assign(known=True)
        ranking = rn.rank_neurons(
            rn.collect_activations(model, made.detection), recall, min_known=1
        )
        matrix = rn.overlap_matrix(ranking, dose=4)
        title = rn.plots.overlap(matrix).layout.title.subtitle.text
        assert ranking.shots == matrix.attrs["shots"] == ("solved examples" in title) == (shots > 0)


def test_shots_are_never_pooled(model):
    """What is shown in front changes what is read, never what is averaged over."""
    made = rn.make_prompts(tiny.relations(), model.tokenizer, held_out=8, nonsense=3, shots=2)
    table = rn.collect_activations(model, made.detection)
    rows = [0, 5, len(made.detection) // 3]
    for row in rows:
        tokens = torch.tensor([made.detection.tokens[row]])
        _, cache = model.run_with_cache(tokens)
        start = max(1, made.detection.context[row])
        for layer in range(model.cfg.n_layers):
            by_hand = cache[f"blocks.{layer}.mlp.hook_post"][0, start:].mean(dim=0)
            assert torch.allclose(table.values[row, layer], by_hand, atol=1e-5)
    with_pads = [
        rn.collect_activations(model, made.detection, batch_size=n).values for n in (1, 7, 64)
    ]
    for other in with_pads:
        assert torch.allclose(table.values, other, atol=1e-5)


def test_pooling_leaves_out_the_context_whatever_the_padding():
    values = torch.arange(12.0).reshape(2, 6, 1)
    mask = torch.tensor([[False, False, True, True, True, True], [True] * 6])
    context = torch.tensor([2, 0])
    assert pool(values, mask, "mean", context)[:, 0].tolist() == [4.5, 9.0]
    assert pool(values, mask, "include_first", context)[:, 0].tolist() == [4.5, 8.5]
    assert pool(values, mask, "max", context)[:, 0].tolist() == [5.0, 11.0]
    assert torch.equal(
        pool(values, mask, "mean"), pool(values, mask, "mean", torch.zeros(2, dtype=int))
    )


def test_shots_follow_the_seed_and_need_facts():
    tokenizer = TOKENIZERS["byte-level"]

    def texts(seed):
        return list(
            rn.make_prompts(tiny.relations(), tokenizer, held_out=8, shots=2, seed=seed).frame[
                "text"
            ]
        )

    assert texts(0) == texts(0) != texts(1)
    with pytest.raises(TooFewFactsError, match="too few to show 18"):
        rn.make_prompts(tiny.relations(), tokenizer, held_out=8, shots=18)
    with pytest.raises(TooFewFactsError, match="shots is -1"):
        rn.make_prompts(tiny.relations(), tokenizer, held_out=8, shots=-1)


def test_a_whole_run_with_shots(model, tmp_path):
    results = rn.run(
        model,
        tiny.relations(),
        out=tmp_path / "run",
        held_out=8,
        shots=2,
        min_known=3,
        doses=(3,),
        draws=1,
        nonsense=4,
        hold_out_templates=1,
    )
    assert (
        results.prompts.loc[results.prompts["kind"] == "fact", "text"].str.count("\n").eq(2).all()
    )
    again = rn.load_results(tmp_path / "run")
    assert again.prompts["text"].equals(results.prompts["text"])


def templates(detect, judge):
    return tuple(
        Template(f"{side} {i} of {{}} is", side=side)
        for side, count in (("detection", detect), ("held_out", judge))
        for i in range(count)
    )


@pytest.mark.parametrize(
    ("there", "asked", "reached"),
    [
        ((2, 2), None, (2, 2)),
        ((2, 2), 1, (2, 1)),
        ((2, 2), 2, (2, 2)),
        ((2, 2), 3, (1, 3)),
        ((3, 0), 1, (2, 1)),
        ((3, 0), 2, (1, 2)),
        ((3, 0), 9, (1, 2)),
    ],
)
def test_held_out_templates_are_taken_from_the_data_first_and_then_from_the_rest(
    there, asked, reached
):
    one = Relation("r", (Fact("a", ("b",)),), templates(*there))
    detect, judge = choose_templates(one, asked)
    assert (len(detect), len(judge)) == reached
    assert not set(detect) & set(judge)
    assert set(judge) <= set(one.templates)


def test_no_template_is_held_out_where_none_can_be_or_none_is_wanted():
    for one, asked in ((templates(1, 0), 1), (templates(2, 2), 0), (templates(3, 0), None)):
        detect, judge = choose_templates(Relation("r", (Fact("a", ("b",)),), one), asked)
        assert detect == judge
    with pytest.raises(TemplateError, match="no detection template"):
        choose_templates(Relation("r", (Fact("a", ("b",)),), templates(0, 2)), None)


def test_pitfall_8_copied_answers_are_counted_and_can_be_dropped():
    facts = tuple(
        Fact(subject, (answer,))
        for subject, answer in (
            ("University of Madrid", "Madrid"),
            ("the Bank of ENGLAND", "England"),
            ("Somalia", "Mali"),  # letters, not words
            ("サンパウロ大学", "サンパウロ"),  # no word breaks in this script
            ("France", "Paris"),
        )
    )
    one = Relation("r", facts, templates(2, 1))
    assert one.copied() == 3
    assert [f.subject for f in drop_copied(one).facts] == ["Somalia", "France"]
    with pytest.raises(TooFewFactsError, match="none is left"):
        drop_copied(Relation("r", facts[:2], templates(2, 1)))


def test_objects_are_balanced_to_the_largest_share_that_can_be_reached():
    counts = {"a": 30, "b": 8, "c": 6, "d": 1}
    facts = tuple(Fact(f"{o}{i}", (o,)) for o, n in counts.items() for i in range(n))
    one = Relation("r", facts, templates(2, 1))
    for share in (0.3, 0.4, 0.5, 0.67, 1.0):
        kept = limit_objects(one, share, seed=1)
        assert kept.majority()[1] <= share
        assert limit_objects(one, share, seed=1) == kept
        more = [n for n in range(1, 31) if n > max(map(kept_count(kept), counts))]
        for n in more:  # no larger cap would do
            capped = [min(count, n) for count in counts.values()]
            if max(capped) == n:
                assert n > share * sum(capped)
    shared = Relation(
        "r", tuple(Fact(f"s{i}", (f"o{i}", "English")) for i in range(20)) + facts, templates(2, 1)
    )
    assert limit_objects(shared, 0.25).majority()[1] <= 0.25  # every accepted object counts
    assert limit_objects(one, 0.4, seed=1) != limit_objects(one, 0.4, seed=2)
    assert limit_objects(one, 1.0) == one
    with pytest.raises(TooFewFactsError, match="too few objects"):
        limit_objects(one, 0.2)


def test_the_facts_drawn_are_the_same_in_each_language():
    facts = tuple(Fact(f"s{i}", ("a",), id=f"{i}") for i in range(50))
    english = Relation("r", facts, templates(2, 1))
    german = Relation(
        "r", tuple(Fact(f"t{i}", ("b",), id=f"{i}") for i in range(50)), templates(2, 1), "de"
    )
    one, other = draw_facts(english, 12, seed=3), draw_facts(german, 12, seed=3)
    assert len(one.facts) == 12 and [f.id for f in one.facts] == [f.id for f in other.facts]
    assert draw_facts(english, 12, seed=4) != one
    assert draw_facts(english, 99) == english
    with pytest.raises(TooFewFactsError, match="max_facts"):
        draw_facts(english, 0)


def kept_count(relation):
    objects = [fact.objects[0] for fact in relation.facts]
    return objects.count


def test_the_options_leave_facts_out_before_the_split(model):
    options = make_options(drop_copied=True, max_object_share=0.3)
    chosen = choose_facts(tiny.relations(), options)
    for before, after in zip(tiny.relations(), chosen, strict=True):
        assert len(after.facts) <= len(before.facts)
        assert after.majority()[1] <= 0.3
    results = rn.run(
        model, tiny.relations(), held_out=8, min_known=3, doses=(3,), draws=0, max_object_share=0.3
    )
    described = {row["name"]: row["facts"] for row in results.manifest["relations"]}
    assert described == {one.name: len(one.facts) for one in chosen}
    assert np.all([row["majority_share"] <= 0.3 for row in results.manifest["relations"]])


@pytest.mark.parametrize("make", [tiny.byte_level_tokenizer, tiny.sentencepiece_tokenizer])
def test_pitfall_5_answers_are_continuations_with_both_kinds_of_tokenizer(make):
    tokenizer = make()
    prompt = "The capital of Aldor is"
    ids = tokenizer(prompt)["input_ids"]
    answer = answer_tokens(tokenizer, prompt, ids, " ", "Paris")
    assert tuple(tokenizer(prompt + " Paris")["input_ids"]) == (*ids, *answer)
    assert tokenizer.decode([*ids, *answer], skip_special_tokens=True).strip() == f"{prompt} Paris"
    alone = tuple(tokenizer("Paris", add_special_tokens=False)["input_ids"])
    if make is tiny.byte_level_tokenizer:
        assert answer != alone  # the leading space is part of the token
    assert tokenizer.bos_token_id not in answer


def test_where_the_tokenizer_merges_across_the_seam_no_token_is_lost():
    tokenizer = tiny.byte_level_tokenizer()
    prompt = "The capital of Aldor is P"  # without separator, "P" + "aris" is one token
    ids = tokenizer(prompt)["input_ids"]
    assert tokenizer.decode(answer_tokens(tokenizer, prompt, ids, "", "aris")) == "aris"
    with pytest.raises(AnswerError, match="not a continuation"):
        answer_tokens(tokenizer, prompt, ids, "", "")


def test_split_and_prompts_keep_subjects_and_templates_apart(prompts, relations):
    facts = prompts.frame[prompts.frame["kind"] == "fact"]
    sides = facts.groupby("subject")["side"].nunique()
    assert (sides == 1).all()
    for relation in relations:
        here = facts[facts["relation"] == relation.name]
        seen = {side: set(rows["template"]) for side, rows in here.groupby("side")}
        assert not seen["detection"] & seen["held_out"]
    assert facts.loc[facts["side"] == "held_out", "template_held_out"].all()
    nonsense = prompts.frame[prompts.frame["kind"] == "nonsense"]
    assert (nonsense["side"] == "detection").all() and not set(nonsense["subject"]) & set(
        facts["subject"]
    )


def test_pitfall_17_the_same_seed_gives_the_same_prompts(model, relations):
    made = [
        rn.make_prompts(relations, model.tokenizer, held_out=0.4, seed=s).frame for s in (1, 1, 2)
    ]
    assert made[0].equals(made[1])
    assert not made[0].equals(made[2])
