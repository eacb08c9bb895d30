"""Facts that turned right or wrong, by name, and the share of majority answers beside them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from relation_neurons.analysis.effects import paired_changes
from relation_neurons.analysis.flips import majority_answers, majority_share, says, turned_right
from relation_neurons.errors import DoseError, RelationFormatError, UnknownOptionError

ANSWERS = {
    "capital": ["Paris"] * 5 + ["Rome", "Oslo", "Lima", "Kyiv", "Quito"],
    "food": [
        "warm bread",
        "warm rice",
        "fish",
        "soup",
        "pie",
        "corn",
        "stew",
        "cake",
        "fish",
        "fish",
    ],
}


def prompts_frame(languages=("en",)):
    rows = []
    for language in languages:
        for relation, answers in ANSWERS.items():
            for i, answer in enumerate(answers):
                rows += [
                    {
                        "kind": "fact",
                        "relation": relation,
                        "language": language,
                        "fact": f"place{i}",
                        "subject": f"Place{i}",
                        "answer": answer,
                        "text": f"{language}: the {relation} of Place{i} is ({form})",
                    }
                    for form in ("a", "b")
                ]
    rows.append(
        {"kind": "background", "relation": "(background)", "language": "en", "answer": ""}
        | {"fact": "", "subject": "", "text": "Water is"}
    )
    frame = pd.DataFrame(rows)
    frame.insert(0, "prompt_id", np.arange(len(frame)) + 100)
    return frame


def intact_of(prompts, known=lambda row: True):
    """Recall in which the model says the answer, or nothing like one."""
    asked = prompts[prompts["kind"] == "fact"].reset_index(drop=True)
    right = [known(row) for row in asked.itertuples()]
    said = [
        f" {row.answer}" if ok else " um" for row, ok in zip(asked.itertuples(), right, strict=True)
    ]
    recall = asked.assign(known=right, predicted=said, margin=np.where(right, 1.0, -1.0))
    return recall.drop(columns=["text", "answer", "subject"])


def effects_of(prompts, recall, says_under, *, doses=(10,), draws=2, language="en"):
    """Effects in which `says_under(ablated, kind, draw, dose, row)` gives the text, None for no change."""
    asked = prompts[prompts["kind"] == "fact"].merge(
        recall[["prompt_id", "predicted", "known", "margin"]], on="prompt_id"
    )
    rows = []
    for ablated in ANSWERS:
        for kind, count in (("ranked", 1), ("control_contribution", draws), ("control_layer", 1)):
            for draw in range(count):
                for dose in doses:
                    for row in asked.itertuples():
                        said = says_under(ablated, kind, draw, dose, row)
                        said = row.predicted if said is None else said
                        right = said.strip() == row.answer
                        rows.append(
                            {
                                "ablated": ablated,
                                "ablated_language": language,
                                "kind": kind,
                                "score": "specific",
                                "dose": dose,
                                "draw": draw,
                                "prompt_id": row.prompt_id,
                                "relation": row.relation,
                                "language": row.language,
                                "fact": row.fact,
                                "correct_intact": row.known,
                                "correct": right,
                                "margin_intact": row.margin,
                                "margin": 0.5 if right else -0.5,
                                "predicted": said,
                            }
                        )
    categories = dict.fromkeys(("ablated", "ablated_language", "kind", "score"), "category")
    return pd.DataFrame(rows).astype(categories)


def test_flips_are_named_with_what_the_model_says_before_and_after():
    prompts = prompts_frame()
    recall = intact_of(prompts, lambda row: row.subject != "Place7")
    recall.loc[recall["fact"] == "place6", "margin"] = 0.1

    def change(ablated, kind, draw, dose, row):
        if ablated != "food" or row.relation != "capital" or row.text.endswith("(b)"):
            return None
        if row.subject == "Place7" and kind == "ranked":
            return " Lima"  # turns right
        if row.subject == "Place6" and (kind == "ranked" or draw == 1):
            return " Paris"  # turns wrong, also under one control draw of two
        return None

    flips = turned_right(effects_of(prompts, recall, change), prompts, recall)
    assert len(flips) == 2 and flips["flip"].tolist() == ["right", "wrong"]
    right, wrong = flips.to_dict("records")
    assert right["ablated"] == "food" and right["relation"] == "capital"
    assert right["where"] == "elsewhere" and right["language"] == "en"
    assert right["subject"] == "Place7" and right["answer"] == "Lima"
    assert right["text"] == "en: the capital of Place7 is (a)"
    assert right["predicted_intact"] == " um" and right["predicted"] == " Lima"
    assert (right["margin_intact"], right["margin"]) == (-1.0, 0.5)
    assert right["control_share"] == 0.0 and not right["near_tie"] and not right["majority"]
    assert wrong["control_share"] == 0.5 and wrong["near_tie"] and wrong["majority"]
    assert wrong["predicted_intact"] == " Oslo" and wrong["predicted"] == " Paris"
    layer = turned_right(
        effects_of(prompts, recall, change), prompts, recall, control="control_layer"
    )
    assert layer["control_share"].tolist() == [0.0, 0.0]


def test_without_controls_the_share_is_missing_and_not_zero():
    prompts = prompts_frame()
    recall = intact_of(prompts)
    effects = effects_of(prompts, recall, lambda *_: " um")
    ranked = effects[effects["kind"] == "ranked"]
    flips = turned_right(ranked, prompts, recall)
    assert len(flips) == 80 and flips["control_share"].isna().all()
    shares = majority_share(ranked, prompts, recall)
    assert shares[["control", "difference", "low", "high"]].isna().all(axis=None)
    assert (shares["share"] == 0).all()


def test_pitfall_7_the_share_of_majority_answers_unmasks_an_improvement():
    """Pitfall 7: a set that makes the model say the majority answer everywhere shows as an improvement."""
    prompts = prompts_frame()
    recall = intact_of(prompts, lambda row: row.relation == "food")
    effects = effects_of(
        prompts,
        recall,
        lambda ablated, kind, draw, dose, row: (
            " Paris" if (ablated, kind, row.relation) == ("food", "ranked", "capital") else None
        ),
    )
    paired = paired_changes(effects)
    away = paired[(paired["ablated"] == "food") & (paired["relation"] == "capital")]
    assert away["correct_difference"].mean() == 0.5  # looks like interference that helps
    shares = majority_share(effects, prompts, recall).set_index(["ablated", "relation"])
    row = shares.loc[("food", "capital")]
    assert row["majority"] == "Paris" and row["baseline"] == 0.5
    assert (row["intact"], row["share"], row["control"]) == (0.0, 1.0, 0.0)
    assert row["low"] < row["difference"] == row["high"] == 1.0
    assert row["turned_right"] == row["turned_right_majority"] == 10
    flips = turned_right(effects, prompts, recall)
    assert len(flips) == 10 and flips["majority"].all()
    assert shares.loc[("capital", "capital"), "share"] == 0.0


def test_facts_that_are_learned_are_not_taken_for_majority_answers():
    """The same gain, by saying each fact's own answer: the share of majority answers stays put."""
    prompts = prompts_frame()
    recall = intact_of(prompts, lambda row: row.relation == "food")
    effects = effects_of(
        prompts,
        recall,
        lambda ablated, kind, draw, dose, row: (
            f" {row.answer}"
            if (ablated, kind, row.relation) == ("food", "ranked", "capital")
            else None
        ),
    )
    row = majority_share(effects, prompts, recall).set_index(["ablated", "relation"])
    row = row.loc[("food", "capital")]
    assert row["turned_right"] == 20 and row["turned_right_majority"] == 10
    assert row["share"] == row["baseline"] == 0.5


def test_pitfall_23_known_facts_can_only_fall_and_unknown_ones_only_rise():
    """Pitfall 23: judged on all facts a set that does nothing has both; on either half, only one."""
    prompts = prompts_frame()
    rng = np.random.default_rng(0)
    recall = intact_of(prompts, lambda row: rng.random() < 0.5)
    noise = np.random.default_rng(1)
    effects = effects_of(
        prompts,
        recall,
        lambda ablated, kind, draw, dose, row: f" {row.answer}" if noise.random() < 0.5 else " um",
    )
    flips = turned_right(effects, prompts, recall)
    assert set(flips["flip"]) == {"right", "wrong"}
    net = (flips["flip"] == "right").sum() - (flips["flip"] == "wrong").sum()
    assert abs(net) <= 12  # of about 40: noise has no direction
    known = effects[effects["correct_intact"]]
    assert set(turned_right(known, prompts, recall)["flip"]) == {"wrong"}
    unknown = effects[~effects["correct_intact"]]
    assert set(turned_right(unknown, prompts, recall)["flip"]) == {"right"}
    assert flips["control_share"].mean() > 0.3  # and random neurons flip the same facts


def test_predictions_are_read_as_far_as_they_go():
    assert says(" Paris", "Paris", whole=True) and says(" paris ", "Paris", whole=True)
    assert not says(" Pa", "Paris", whole=True)  # a correct answer of its own
    assert says(" Pa", "Paris", ["Rome"], whole=False)
    assert says(" Pa", "Paris", ["Panama"], whole=False) is None
    assert says(" Paris", "Paris", ["Paris, Texas"], whole=False)
    assert not says(" Parisian", "Paris", whole=False)
    for nothing in ("", " ", "\ufffd"):
        assert not says(nothing, "Paris", whole=False)
    assert says("\u6771\ufffd", "\u6771\u4eac", whole=False)  # cut within a character


def test_a_start_that_several_answers_share_is_unclear_and_not_counted():
    prompts = prompts_frame()
    prompts.loc[prompts["answer"] == "fish", "answer"] = "warm fish"  # now the majority
    recall = intact_of(prompts, lambda row: False)
    effects = effects_of(
        prompts, recall, lambda *args: " warm" if args[-1].relation == "food" else None
    )
    row = majority_share(effects, prompts, recall).set_index(["ablated", "relation"])
    row = row.loc[("capital", "food")]
    assert row["majority"] == "warm fish" and row["unclear"] == 1.0 and row["share"] == 0.0


def test_the_majority_is_counted_over_facts_or_taken_from_the_manifest():
    prompts = prompts_frame()
    counted = majority_answers(prompts).set_index("relation")
    assert counted.loc["capital", "majority_answer"] == "Paris"
    assert counted.loc["food", "baseline"] == 0.3  # of facts, not of prompts
    manifest = [
        {"name": name, "language": "en", "majority_object": answer, "majority_share": 0.4}
        for name, answer in (("capital", "Rome"), ("food", "pie"))
    ]
    recall = intact_of(prompts)
    effects = effects_of(prompts, recall, lambda *_: " Rome")
    shares = majority_share(effects, prompts, recall, relations=manifest)
    assert set(shares.loc[shares["relation"] == "capital", "share"]) == {1.0}
    assert set(shares["baseline"]) == {0.4}
    with pytest.raises(RelationFormatError, match="No majority answer of 'food'"):
        majority_share(effects, prompts, recall, relations=manifest[:1])


def test_several_languages_are_kept_apart():
    prompts = prompts_frame(("en", "de"))
    recall = intact_of(prompts)
    parts = [
        effects_of(prompts, recall, lambda *_: " Paris", language=language)
        for language in ("en", "de")
    ]
    effects = pd.concat(parts, ignore_index=True)
    shares = majority_share(effects, prompts, recall)
    assert set(shares["ablated"]) == {f"{r} ({lang})" for r in ANSWERS for lang in ("en", "de")}
    assert len(shares) == 8 and (shares["n"] == 20).all()
    flips = turned_right(effects, prompts, recall)
    assert (flips["ablated_language"] == flips["language"]).all()
    assert set(flips["relation"]) == set(ANSWERS)


def test_what_is_missing_is_named():
    prompts = prompts_frame()
    recall = intact_of(prompts)
    effects = effects_of(prompts, recall, lambda *_: None, doses=(5, 10))
    assert turned_right(effects, prompts, recall).empty
    for table, column in ((0, "predicted"), (1, "subject"), (2, "predicted")):
        tables = [effects, prompts, recall]
        tables[table] = tables[table].drop(columns=column)
        with pytest.raises(RelationFormatError, match=f"lacks the column '{column}'"):
            turned_right(*tables)
    with pytest.raises(RelationFormatError, match="tables of one run"):
        turned_right(effects, prompts.iloc[3:], recall)
    with pytest.raises(DoseError, match="there are 5, 10"):
        turned_right(effects, prompts, recall, dose=7)
    with pytest.raises(UnknownOptionError, match="Did you mean control_layer"):
        majority_share(effects, prompts, recall, control="control_layers")
