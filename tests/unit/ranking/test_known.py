"""Known facts per wording: counted as the threshold counts them, and what helps is what was not tried."""

from __future__ import annotations

import pandas as pd
import pytest

import relation_neurons as rn
from relation_neurons.errors import UnknownOptionError
from relation_neurons.ranking.known import (
    advice_for_ranking,
    advice_for_relation,
    has_shots,
    known_counts,
    known_facts,
    left_out_relations,
)

WORDINGS = {"detection": ("{} is in", "Where is {}? In"), "held_out": ("{} lies in",)}
# relation, side, subject: what the model says in each of the side's wordings ("" where it is right)
SAID = {
    ("b", "held_out"): [(" a",), ("",), (" the",), (" a",)],
    ("b", "detection"): [("", " a"), (" a", ""), (" a", " the"), ("", "")],
    ("a", "detection"): [("", ""), ("", ""), ("", ""), ("", "")],
    ("a", "held_out"): [("",), ("",), ("",), (' "',)],
}


def asked(shown: str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prompts and recall, in the order of SAID, with `shown` in front of every prompt."""
    rows = [
        {
            "prompt_id": 0,
            "kind": "fact",
            "relation": relation,
            "language": "en",
            "side": side,
            "subject": f"{side} {number}",
            "template": template,
            "text": shown + template.replace("{}", f"{side} {number}"),
            "known": not answer,
            "predicted": answer or " right",
        }
        for (relation, side), facts in SAID.items()
        for number, answers in enumerate(facts)
        for template, answer in zip(WORDINGS[side], answers, strict=True)
    ]
    frame = pd.DataFrame(rows).assign(prompt_id=range(len(rows)))
    recall = frame[["prompt_id", "known", "predicted", "relation", "language", "subject", "side"]]
    background = frame.iloc[:1].assign(
        prompt_id=99, kind="background", text="It rains.", subject=""
    )
    return pd.concat([frame.drop(columns=["known", "predicted"]), background]), recall


def test_each_wording_has_its_counts_in_the_order_of_the_data() -> None:
    table = known_facts(*asked(), min_known=3)
    assert list(table[["relation", "side", "template"]].itertuples(index=False, name=None)) == [
        ("b", "detection", "{} is in"),
        ("b", "detection", "Where is {}? In"),
        ("b", "held_out", "{} lies in"),
        ("a", "detection", "{} is in"),
        ("a", "detection", "Where is {}? In"),
        ("a", "held_out", "{} lies in"),
    ]
    assert table["known"].tolist() == [2, 2, 1, 4, 4, 3]
    assert table["facts"].tolist() == [4] * 6
    assert table["wrong"].tolist() == [
        "' a' x2 (detection 1)",
        "' a' x1 (detection 0), ' the' x1 (detection 2)",
        "' a' x2 (held_out 0), ' the' x1 (held_out 2)",
        "",
        "",
        "' \"' x1 (held_out 3)",
    ]


def test_the_side_is_counted_as_the_threshold_counts_it() -> None:
    """Two facts in each wording are three facts on the side: neither the sum nor the best wording."""
    prompts, recall = asked()
    table = known_facts(prompts, recall, min_known=3)
    assert table["known_on_side"].tolist() == [3, 3, 1, 4, 4, 3]
    counts = known_counts(recall).set_index(["relation", "side"])["known"]
    for row in table.itertuples():
        assert row.known_on_side == counts[row.relation, row.side]
    for needed in (1, 2, 3, 4):
        table = known_facts(prompts, recall, min_known=needed)
        short = set(table.loc[table["known_on_side"] < table["needed"], "relation"])
        assert short == set(left_out_relations(recall, needed))
    assert set(left_out_relations(recall, 3)) == {"b"}


def test_the_commonest_three_wrong_answers_are_shown_and_equals_by_the_alphabet() -> None:
    prompts, recall = asked()
    there = (prompts["relation"] == "b") & (prompts["side"] == "held_out")
    recall.loc[there[: len(recall)].to_numpy(), ["known", "predicted"]] = [
        (False, answer) for answer in (" z", " y", " z", " x")
    ]
    wrong = known_facts(prompts, recall).set_index(["relation", "side"])["wrong"]
    assert wrong["b", "held_out"] == (
        "' z' x2 (held_out 0), ' x' x1 (held_out 3), ' y' x1 (held_out 1)"
    )
    recall.loc[there[: len(recall)].to_numpy(), "predicted"] = [" z", " y", " w", " x"]
    wrong = known_facts(prompts, recall).set_index(["relation", "side"])["wrong"]
    assert wrong["b", "held_out"] == (
        "' w' x1 (held_out 2), ' x' x1 (held_out 3), ' y' x1 (held_out 1)"
    )


def test_a_recall_of_other_prompts_is_refused() -> None:
    prompts, recall = asked()
    with pytest.raises(UnknownOptionError, match=r"8 of the 24 prompts .* detection and held-out"):
        known_facts(prompts[prompts["side"] == "detection"], recall)
    with pytest.raises(UnknownOptionError, match="24 of the 24"):
        known_facts(prompts, recall.assign(relation="other"))


def test_solved_examples_are_no_advice_to_those_who_have_some() -> None:
    (without, _), (few, _) = asked(), asked("x is in y\n")
    assert not has_shots(without) and has_shots(few)
    assert "shots=3" in advice_for_ranking(without) and "shots" not in advice_for_ranking(few)
    for prompts in (without, few):
        assert "rn.known_facts" in advice_for_ranking(
            prompts
        ) and "more facts" in advice_for_ranking(prompts)


def test_what_helps_one_relation_is_read_off_its_wordings() -> None:
    table = known_facts(*asked(), min_known=4)
    (b, a) = (table[table["relation"] == name] for name in "ba")
    last, shots, wording, detection, held_out = advice_for_relation(b, shots=False)
    assert "'{} is in' last" in last and "50%" in last and "25%" in last
    assert "--shots 3" in shots and "at once" in wording
    assert "some 6 on the side detection, where 4 are now" in detection
    assert "some 16 on the side held_out, where 4 are now" in held_out
    assert advice_for_relation(b, shots=True) == (last, wording, detection, held_out)
    assert len(advice_for_relation(a, shots=True)) == 3, (
        "the last wording, a wording, held-out facts only"
    )
    none = b.assign(known=0, known_on_side=0)
    assert "of 4 facts held_out it knows none" in advice_for_relation(none, shots=True)[-1]
    assert not any(" last" in one for one in advice_for_relation(none, shots=True))


def test_it_reads_prompts_and_the_table_of_a_run() -> None:
    planted = rn.planted_model(relations=2, seed=0)
    prompts = rn.make_prompts(planted.relations, planted.model.tokenizer, held_out=0.5)
    recall = rn.measure_recall(planted.model, prompts)
    table = rn.known_facts(prompts, recall)
    pd.testing.assert_frame_equal(table, rn.known_facts(prompts.frame, recall))
    sizes = prompts.split_sizes().set_index(["relation", "side"])["facts"]
    assert [sizes[row.relation, row.side] for row in table.itertuples()] == table["facts"].tolist()
