"""Histograms of one neuron and the table of flips hold what their tables say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from relation_neurons import plots
from relation_neurons.activations.table import ActivationTable, neuron_activations
from relation_neurons.errors import ActivationError, RelationFormatError, UnknownRelationError

EVIL = "<script>x</script>"


def make_table(relations=("capital", "opposite"), count=30) -> ActivationTable:
    rows = [("fact", name, f"{name} {i}") for name in relations for i in range(count)]
    rows += [("background", "(background)", "") for _ in range(10)]
    rows += [("nonsense", relations[0], "blor") for _ in range(5)]
    frame = pd.DataFrame(rows, columns=["kind", "relation", "subject"])
    frame = frame.assign(prompt_id=range(len(rows)), language="en", text="t " + frame["subject"])
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(len(rows), 2, 3, generator=generator)
    values[torch.tensor((frame["relation"] == relations[1]).tolist()), 1, 2] += 5
    nothing = torch.zeros(2, 3)
    return ActivationTable(values, frame, nothing, nothing, nothing, pool="mean", site="post")


def make_flips(count=4) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"ablated": "capital" if i % 2 else "opposite", "relation": "opposite"}
            | {"flip": "wrong" if i % 2 else "right", "subject": EVIL if i == 0 else f"s{i}"}
            | {"answer": "an answer that is far too long to fit", "predicted_intact": " a_b"}
            | {"predicted": " c", "margin_intact": 0.1 * i, "margin": -0.1 * i}
            | {"control_share": math.nan if i == 1 else 0.25, "near_tie": i == 0, "majority": True}
            for i in range(count)
        ]
    )


def test_one_neuron_is_read_out_of_the_table() -> None:
    table = make_table()
    recall = pd.DataFrame({"prompt_id": [0, 1], "known": [True, False]})
    found = neuron_activations(table, "L1N2", recall)
    assert np.array_equal(found["activation"], table.values[:, 1, 2].double())
    assert found.equals(neuron_activations(table, (1, 2), recall))
    assert found["known"].tolist()[:2] == [True, False] and found["known"][2:].isna().all()
    with pytest.raises(ActivationError, match="no neuron L2N0; expected one from L0N0 to L1N2"):
        neuron_activations(table, "L2N0")


def test_histograms_count_every_prompt_once() -> None:
    found = neuron_activations(make_table(), "L1N2")
    fig = plots.activations(found)
    rows = list(fig.layout.yaxis.ticktext)
    assert set(rows) == {"opposite", "capital", "neutral prompts", "capital (nonsense)"}
    assert rows[0] == "opposite", "the highest mean stands first"
    counts = {}
    for bars, name in zip(fig.data, rows, strict=False):
        said = [int(text.split()[0]) for text in bars.hovertext]
        counts[name] = sum(said)
        shown = np.array([-y for y in bars.y])
        assert np.allclose(shown / shown.max(), np.array(said) / max(said))
    assert counts == {"opposite": 30, "capital": 30, "neutral prompts": 10, "capital (nonsense)": 5}
    assert fig.data[0].marker.color != fig.data[1].marker.color, "one relation stands out"
    chosen = plots.activations(found, "capital")
    assert chosen.data[rows.index("capital")].marker.color == fig.data[0].marker.color


def test_activations_of_several_neurons_or_none_are_refused() -> None:
    table = make_table()
    found = neuron_activations(table, "L1N2")
    with pytest.raises(RelationFormatError, match="holds 2 neurons"):
        plots.activations(pd.concat([found, neuron_activations(table, "L0N0")]))
    with pytest.raises(RelationFormatError, match=r"'kind'.*neuron_activations"):
        plots.activations(found.drop(columns="kind"))
    with pytest.raises(UnknownRelationError, match=r"'capitel'.*capital"):
        plots.activations(found, "capitel")


def test_48_relations_and_a_constant_neuron_are_drawn() -> None:
    table = make_table(tuple(f"relation {i}" for i in range(48)), count=3)
    table.values[:, 0, 0] = 0.0
    for neuron in ("L1N2", "L0N0"):
        fig = plots.activations(neuron_activations(table, neuron))
        assert fig.layout.height > 48 * 20 and len(fig.layout.yaxis.ticktext) == 50


def test_the_table_of_flips_says_what_flipped() -> None:
    table = make_flips()
    fig = plots.flips(table)
    heads, cells = (fig.data[0][part]["values"] for part in ("header", "cells"))
    columns = [head.removeprefix("<b>").removesuffix("</b>") for head in heads]
    values = dict(zip(columns, cells, strict=True))
    assert list(values["relation asked"]) == ["opposite"] * 4
    assert values["subject"][0] == "&lt;script&gt;x&lt;/script&gt;"
    assert values["answer"][0].endswith("…") and values["intact model says"][0] == "a_b"
    assert list(values["control flips"]) == ["25%", "n/a", "25%", "25%"]
    assert values["note"][0] == "majority answer, near tie"
    assert "2 turned right, 2 turned wrong" in fig.layout.title.text


def test_flips_of_one_relation_or_one_kind() -> None:
    table = make_flips(60)
    assert "0 turned right, 30 turned wrong" in plots.flips(table, "capital").layout.title.text
    assert "first 25 of 60" in plots.flips(table).layout.title.subtitle.text
    assert "30 turned right, 0" in plots.flips(table, flip="right").layout.title.text
    with pytest.raises(UnknownRelationError, match=r"'capitle'.*capital"):
        plots.flips(table, "capitle")
    with pytest.raises(RelationFormatError, match="'margin'"):
        plots.flips(table.drop(columns="margin"))
    with pytest.raises(RelationFormatError, match="no row"):
        plots.flips(table.iloc[:0])
