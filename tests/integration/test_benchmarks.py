"""The benchmarks work at their smallest size; how fast they are is no test."""

from __future__ import annotations

import sys

import pytest

from helpers.paths import ROOT

sys.path.insert(0, str(ROOT))

from benchmarks import (
    breakdown,
    capture,
    demo,
    llama2_shape,
    published,
    run,
    scale,
    sweep,
    whole_demo,
    workers,
)

KEYS = {"what", "goal", "measured", "ratio", "command", "note"}


@pytest.mark.parametrize(
    "module",
    [
        capture,
        sweep,
        demo,
        published,
        scale,
        llama2_shape,
        breakdown,
        pytest.param(workers, marks=pytest.mark.slow),
        pytest.param(whole_demo, marks=pytest.mark.slow),
    ],
)
def test_every_row_is_whole(module, as_a_user, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = module.rows("small")
    assert rows
    for row in rows:
        assert set(row) == KEYS and all(isinstance(value, str) for value in row.values())
        assert float(row["ratio"]) > 0
        assert row["command"] == f"python -m {module.__name__}"


def test_the_stand_in_answers_as_the_package_does(as_a_user):
    row = published.ablation("small")
    assert "agree on 3 of 3" in row["note"]


def test_the_figure_of_scale_has_every_axis_beside_what_is_allowed(as_a_user, monkeypatch):
    table = scale.measure("small")
    assert set(table["axis"]) == {"prompts", "neurons", "relations"}
    assert set(table.loc[table["axis"] == "prompts", "what"]) == {
        "Scoring",
        "Capture",
        "Ablated pass",
    }
    made = scale.figure("small")
    assert sum(trace.name == "allowed" for trace in made.data) == 3
    assert all(made.layout[axis].type == "log" for axis in ("xaxis", "xaxis2", "xaxis3", "yaxis"))


def test_new_sections_take_the_place_of_old_ones(tmp_path, monkeypatch):
    row = dict.fromkeys(KEYS, "0.93")
    monkeypatch.setattr(capture, "rows", lambda size: [row])
    monkeypatch.setattr(sweep, "rows", lambda size: [{**row, "note": "a | b"}])
    out = tmp_path / "RESULTS.md"
    run.main(["--only", "sweep", "--size", "small", "--out", str(out)])
    assert "## Capture" not in out.read_text()
    run.main(["--only", "capture", "--size", "small", "--out", str(out)])
    text = out.read_text()
    assert text.index("## Capture") < text.index("## Sweep")
    assert "a \\| b" in text and text.count("size small") == 2
    assert "No GPU run has been made yet" in text
    monkeypatch.setattr(capture, "rows", lambda size: [{**row, "ratio": "0.5"}])
    run.main(["--only", "capture", "--size", "small", "--out", str(out)])
    assert out.read_text().count("## Capture") == 1 and "| 0.5 |" in out.read_text()
    with pytest.raises(SystemExit):
        run.main(["--only", "nothing", "--out", str(out)])
