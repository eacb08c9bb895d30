"""The job of answering held-out prompts under each ablated set."""

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
    """Refuses `mode='scale'` without its factor.

    Raises:
        UnknownOptionError: there is no factor.
    """
    if mode == "scale" and value is None:
        raise UnknownOptionError("mode='scale' needs a value, the factor.")


def check_planned(conditions: Sequence[Condition], contrasts: Sequence[str]) -> None:
    """Refuses a sweep that has no set to ablate.

    Raises:
        TooFewFactsError: no relation has a ranking of these contrasts.
    """
    if not conditions:
        raise TooFewFactsError(
            f"No relation has a ranking of the contrast {', '.join(contrasts)}. `specific` tells a relation "
            "from others, so it takes two; with one relation use the contrast `background`."
        )


def judged(prompts: Prompts, which: pd.Series | np.ndarray) -> Prompts:
    """Returns the facts' prompts among `which`.

    Raises:
        DoseError: there are none.
    """
    asked = prompts.take(which & (prompts.frame["kind"] == "fact"))
    if len(asked) == 0:
        raise DoseError(
            "There is no held-out prompt of a ranked relation to judge the ablation on; expected one "
            "or more."
        )
    return asked


@dataclass(frozen=True)
class PromptJob:
    """The same prompts, answered under one ablated set after another."""

    sets: AblatedSets
    asked: Prompts
    batch_size: int

    def keys(self) -> list[str]:
        """See `Job`."""
        return self.sets.keys(self.asked.frame["prompt_id"].tolist())

    def begin(self, model: HookedModel) -> Callable[[int], pd.DataFrame]:
        """Answers with the intact model, and returns the function that answers under the set at an index.

        Below its lowest ablated layer, an ablated model reuses the intact pass.
        """
        passes = plan_passes(self.asked)
        batches = passes.batches(model, self.batch_size)
        lowest = self.sets.first_layers()
        streams = IntactStreams(model, batches, lowest)
        intact = answer_prompts(model, passes, batches=batches, streams=streams)
        streams.close()

        def ask(index: int) -> pd.DataFrame:
            with self.sets.ablated(model, index) as ablation:
                after = answer_prompts(
                    model,
                    passes,
                    batches=batches,
                    streams=streams,
                    first_layer=lowest[index],
                    before_batch=ablation.start,
                )
            return _rows(self.sets.conditions[index], self.asked.frame, intact, after)

        return ask

    def to_message(self) -> dict[str, Any]:
        """See `Job`."""
        prompts = packed(prompts_table(self.asked))
        return {**self.sets.to_message(), "prompts": prompts, "batch_size": self.batch_size}

    @classmethod
    def from_message(cls, data: dict[str, Any]) -> PromptJob:
        """Reads what `to_message` returned."""
        asked = prompts_of(unpacked(data["prompts"]))
        return cls(AblatedSets.from_message(data), asked, data["batch_size"])


def tabled(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Joins the tables of all sets; columns that repeat their values become categories."""
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
