"""Asking again: the same prompts under one ablation after another, a table for each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch

from relation_neurons.ablation import ablated
from relation_neurons.chunks import Chunks, chunk_key
from relation_neurons.conditions import Condition
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError
from relation_neurons.models import HookedTransformer
from relation_neurons.progress import progress_bar
from relation_neurons.prompts import Prompts
from relation_neurons.ranking import Ranking
from relation_neurons.recall import Outcomes, answer_prompts, plan_passes
from relation_neurons.streams import IntactStreams

__all__ = ["ask_again", "check_planned", "check_scale", "judged", "tabled"]


def check_scale(mode: str, value: float | None) -> None:
    """Asks for the factor of `scale`."""
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")


def check_planned(conditions: Sequence[Condition], scores: Sequence[str]) -> None:
    """Makes sure that there is a set to ablate."""
    if not conditions:
        raise TooFewFactsError(
            f"No relation has a ranking of the score {', '.join(scores)}. `specific` tells a relation "
            "from others, so it takes two; with one relation use the score `background`."
        )


def judged(prompts: Prompts, which: pd.Series | np.ndarray) -> Prompts:
    """The facts' prompts among `which`, and an error where there are none."""
    asked = prompts.take(which & (prompts.frame["kind"] == "fact"))
    if len(asked) == 0:
        raise DoseError(
            "There is no held-out prompt of a ranked relation to judge the ablation on."
        )
    return asked


def ask_again(
    model: HookedTransformer,
    asked: Prompts,
    ranking: Ranking,
    conditions: Sequence[Condition],
    *,
    mode: str,
    value: float | None,
    positions: str,
    batch_size: int,
    chunks: Chunks | None = None,
) -> list[pd.DataFrame]:
    """Asks every prompt under each condition, and once of the intact model; a table per condition.

    What an ablated model does below its lowest ablated layer is taken from the intact pass. A
    condition's table is kept as a chunk as soon as it is there, and read where it is there already.
    """
    passes = plan_passes(asked)
    batches = passes.batches(model, batch_size)
    lowest = [int(condition.neurons["layer"].min()) for condition in conditions]
    streams = IntactStreams(model, batches, lowest)
    intact = answer_prompts(model, passes, batches=batches, streams=streams)
    typical = torch.tensor(ranking.neurons["mean"].to_numpy(copy=True))
    chunks = Chunks() if chunks is None else chunks

    def ask(condition: Condition, first_layer: int) -> pd.DataFrame:
        layers, indices = condition.neurons["layer"], condition.neurons["neuron"]
        mean = typical[torch.tensor((layers * ranking.width + indices).to_list())]
        with ablated(
            model,
            condition.neurons,
            site=ranking.site,
            mode=mode,
            positions=positions,
            value=mean if mode == "mean" else value,
        ) as ablation:
            after = answer_prompts(
                model,
                passes,
                batches=batches,
                streams=streams,
                first_layer=first_layer,
                before_batch=ablation.start,
            )
        return _rows(condition, asked.frame, intact, after)

    tables = []
    with progress_bar(len(conditions) * len(passes.sequences), "ablation sweep", "row") as bar:
        for place, (condition, first_layer) in enumerate(zip(conditions, lowest, strict=True)):
            key = _key(condition, asked, mode, value, positions)
            tables.append(chunks.make(place, key, partial(ask, condition, first_layer)))
            bar.update(len(passes.sequences))
    return tables


def _key(
    condition: Condition, asked: Prompts, mode: str, value: float | None, positions: str
) -> str:
    """Names a condition's chunk by all that decides it, but for what the run's manifest says."""
    neurons = condition.neurons[["layer", "neuron"]].to_numpy().tolist()
    asked_ids = asked.frame["prompt_id"].tolist()
    return chunk_key(condition.labels(), neurons, asked_ids, mode, value, positions)


def tabled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Puts the conditions' tables together, with what repeats as categories."""
    effects = pd.concat(tables, ignore_index=True)
    for column in ("ablated", "ablated_language", "kind", "score", "relation", "language", "fact"):
        effects[column] = effects[column].astype("category")
    return effects


def _rows(
    condition: Condition, asked: pd.DataFrame, intact: Outcomes, after: Outcomes
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            **condition.labels(),
            "prompt_id": asked["prompt_id"].to_numpy(),
            "relation": asked["relation"].to_numpy(),
            "language": asked["language"].to_numpy(),
            "fact": asked["fact"].to_numpy(),
            "template_held_out": asked["template_held_out"].to_numpy(),
            "correct_intact": intact.correct,
            "correct": after.correct,
            "margin_intact": intact.margin.astype(np.float32),
            "margin": after.margin.astype(np.float32),
            "logprob_intact": intact.logprob.astype(np.float32),
            "logprob": after.logprob.astype(np.float32),
            "predicted": list(after.predicted),
        }
    )
