"""Asking again: the same prompts under one ablation after another, a table for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.ablation.sets import AblatedSets, Condition
from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import DoseError, TooFewFactsError, UnknownOptionError
from relation_neurons.inference.recall import Outcomes, answer_prompts, plan_passes
from relation_neurons.inference.residual_cache import IntactStreams
from relation_neurons.relations.prompts import Prompts, prompts_of, prompts_table
from relation_neurons.storage.chunks import packed, unpacked

__all__ = ["PromptJob", "check_planned", "check_scale", "judged", "tabled"]


def check_scale(mode: str, value: float | None) -> None:
    """Asks for the factor of `scale`."""
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")


def check_planned(conditions: Sequence[Condition], contrasts: Sequence[str]) -> None:
    """Makes sure that there is a set to ablate."""
    if not conditions:
        raise TooFewFactsError(
            f"No relation has a ranking of the contrast {', '.join(contrasts)}. `specific` tells a relation "
            "from others, so it takes two; with one relation use the contrast `background`."
        )


def judged(prompts: Prompts, which: pd.Series | np.ndarray) -> Prompts:
    """The facts' prompts among `which`, and an error where there are none."""
    asked = prompts.take(which & (prompts.frame["kind"] == "fact"))
    if len(asked) == 0:
        raise DoseError(
            "There is no held-out prompt of a ranked relation to judge the ablation on."
        )
    return asked


@dataclass(frozen=True)
class PromptJob:
    """The job of asking the same prompts under one ablated set after another."""

    sets: AblatedSets
    asked: Prompts
    batch_size: int

    def keys(self) -> list[str]:
        """See `Job`."""
        return self.sets.keys(self.asked.frame["prompt_id"].tolist())

    def begin(self, model: HookedModel) -> Callable[[int], pd.DataFrame]:
        """Asks the intact model, and gives the function that asks under one set.

        What an ablated model does below its lowest ablated layer is taken from the intact pass.
        """
        passes = plan_passes(self.asked)
        batches = passes.batches(model, self.batch_size)
        lowest = self.sets.first_layers()
        streams = IntactStreams(model, batches, lowest)
        intact = answer_prompts(model, passes, batches=batches, streams=streams)
        streams.close()

        def ask(place: int) -> pd.DataFrame:
            with self.sets.ablated(model, place) as ablation:
                after = answer_prompts(
                    model,
                    passes,
                    batches=batches,
                    streams=streams,
                    first_layer=lowest[place],
                    before_batch=ablation.start,
                )
            return _rows(self.sets.conditions[place], self.asked.frame, intact, after)

        return ask

    def to_message(self) -> dict[str, Any]:
        """See `Job`."""
        prompts = packed(prompts_table(self.asked))
        return {**self.sets.to_message(), "prompts": prompts, "batch_size": self.batch_size}

    @classmethod
    def from_message(cls, data: dict[str, Any]) -> PromptJob:
        """Reads what `plain` gave."""
        asked = prompts_of(unpacked(data["prompts"]))
        return cls(AblatedSets.from_message(data), asked, data["batch_size"])


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
