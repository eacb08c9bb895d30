"""Asking a model which facts of a source it knows, with the prompts that a run would use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from relation_neurons.cli.options import count_or_share
from relation_neurons.errors import UnknownOptionError

if TYPE_CHECKING:  # importing them takes seconds, which --help should not
    import pandas as pd

    from relation_neurons.backends.base import HookedModel
    from relation_neurons.relations.prompts import Prompts

__all__ = ["Known", "ask_and_say", "asking"]

_TO_SPARE = 5


def asking(model: str | None, **given: Any) -> dict[str, Any]:
    """Checks how a model is to be asked, before it loads.

    Raises:
        UnknownOptionError: options without a model, or values that `run` refuses.
    """
    stated = {name: value for name, value in given.items() if value is not None}
    if model is None:
        if stated:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in stated)
            raise UnknownOptionError(f"{names}: how a model is asked; add --model smollm2-135m.")
        return {}
    from relation_neurons.results.options import make_options

    given["held_out"] = count_or_share(given["held_out"])
    make_options(**given)
    return given


class Known(NamedTuple):
    """A model that was asked."""

    model: HookedModel
    prompts: Prompts
    recall: pd.DataFrame
    ranked: int
    """Relations that it knows enough of."""


def ask_and_say(name: str, source: str, languages: str | None, given: dict[str, Any]) -> Known:
    """Asks the model as `run` would with these options, and says what it knows."""
    from relation_neurons.experiment.rank_stage import planned_prompts
    from relation_neurons.inference.recall import measure_recall
    from relation_neurons.models.loading import load_model
    from relation_neurons.ranking.known import has_shots, known_facts, left_out_relations
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.results.options import make_options

    options = make_options(**given)
    relations = load_relations(source, languages=languages)
    model = load_model(name)
    prompts = planned_prompts(model, relations, options)
    recall = measure_recall(model, prompts, batch_size=options.batch_size)
    table = known_facts(prompts, recall, min_known=options.min_known)
    left_out = left_out_relations(recall, options.min_known)
    several = table["language"].nunique() > 1
    typer.echo(
        f"\nwhat {name} knows, of the facts that each wording asks (--held-out {options.held_out} "
        f"--shots {options.shots} --seed {options.seed}); a relation needs {options.min_known} known "
        "facts on each side:"
    )
    for (relation, language), rows in table.groupby(["relation", "language"], sort=False):
        label = f"{relation} ({language})" if several else relation
        for line in _lines(label, rows, label in left_out, has_shots(prompts.frame)):
            typer.echo(line)
    ranked = len(table[["relation", "language"]].drop_duplicates()) - len(left_out)
    typer.echo(f"{ranked} would be ranked, {len(left_out)} left out")
    return Known(model, prompts, recall, ranked)


def _lines(label: str, wordings: pd.DataFrame, left_out: bool, shots: bool) -> list[str]:
    """What is known of one relation: a line for it, for each side, and for each wording."""
    from relation_neurons.ranking.known import advice_for_relation

    spare = (wordings["known_on_side"] - wordings["needed"]).min()
    few = ", with few to spare: the split is drawn again when the file changes"
    verdict = "LEFT OUT" if left_out else "ranked" + (few if spare < _TO_SPARE else "")
    lines = [f"{label}: {verdict}"]
    for side, rows in wordings.groupby("side", sort=False):
        first = rows.iloc[0]
        short = ", too few" if first["known_on_side"] < first["needed"] else ""
        lines.append(f"  {side}: needs {first['needed']}, has {first['known_on_side']}{short}")
        for row in rows.itertuples():
            wrong = f" - wrong: {row.wrong}" if row.wrong else ""
            lines.append(f"    {row.known} of {row.facts} in {row.template!r}{wrong}")
    if left_out:
        lines.append("  what helps, one or more of:")
        lines += [f"    {one}" for one in advice_for_relation(wordings, shots=shots)]
    return lines
