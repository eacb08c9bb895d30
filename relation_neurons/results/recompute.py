"""Recompute a random sample of a run's ablated sets, and compare the results bit for bit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from relation_neurons.ablation.jobs import run_job
from relation_neurons.ablation.prompt_job import PromptJob, judged
from relation_neurons.ablation.sets import AblatedSets
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import weight_hash
from relation_neurons.errors import UnknownOptionError
from relation_neurons.relations.prompts import Prompts
from relation_neurons.results.completeness import CONDITION
from relation_neurons.results.manifest import read_options
from relation_neurons.results.plan import Plan
from relation_neurons.results.results import Results, read_prompts
from relation_neurons.results.verification import Check

__all__ = ["recompute_sample"]

_FLOATS = ("margin_intact", "margin", "logprob_intact", "logprob")
_OTHERS = ("prompt_id", "correct_intact", "correct", "predicted")
_ROUNDING = 1e-4
"""Nats by which sums in another order may differ."""
_SURE = 1e-3
"""Logits of margin above which correctness cannot."""


def recompute_sample(
    results: Results,
    model: HookedModel,
    count: int,
    *,
    seed: int = 0,
    elsewhere: bool = False,
    batch_size: int | None = None,
) -> list[Check]:
    """Recomputes a random sample of the sweep's ablations and compares it with `effects`.

    The same plan on the same machine gives the same bytes. On another machine, with other versions, with
    another number of threads or after a batch was halved, sums are taken in another order.

    Args:
        results: what `load_results` returns for a folder.
        model: the run's.
        count: how many ablated sets, each over all held-out prompts; all of them where there are fewer.
        seed: of the sample.
        elsewhere: for another machine than the run's: accepts log-probabilities that differ by up to 1e-4,
            and compares correctness only where the margin is above 1e-3.
        batch_size: the run's by default.

    Returns:
        A check for each set, and one that says how many of how many there were.

    Raises:
        UnknownOptionError: a sample below 1, or results that lie in no folder.
        ResultsError: another version made the run, with options that this version does not know.
    """
    if count < 1:
        raise UnknownOptionError(f"The sample is {count}; expected one ablated set or more.")
    if results.folder is None:
        raise UnknownOptionError("The results were not saved in a folder; expected what load_results returns.")
    if weight_hash(model) != results.manifest["model"]["weight_hash"]:
        what = f"recomputed with {model.cfg.model_name}"
        return [Check(what, "its weights are not those of the run")]
    options = read_options(results.manifest)
    plan = Plan(options, len(results.ranking.neurons))
    planned = plan.ablations(results.ranking, results.collateral).effects
    there = _by_condition(results.effects)
    unplanned = set(there) - {_key(condition.labels()) for condition in planned}
    if unplanned:
        return [Check("effects and plan", f"{' '.join(min(unplanned))} is not in the plan")]
    planned = [condition for condition in planned if _key(condition.labels()) in there]
    chosen = np.random.default_rng(seed).permutation(len(planned))[:count]
    sample = [planned[i] for i in sorted(chosen)]
    sets = AblatedSets.of(
        sample,
        results.ranking,
        mode=options.mode,
        value=None,
        positions=options.positions,
    )
    job = PromptJob(sets, _asked(results), batch_size or options.batch_size)
    tables = run_job(model, job, "recomputing")
    checks = [Check(f"{len(sample)} of {len(planned)} ablated sets recomputed")]
    for condition, again in zip(sample, tables, strict=True):
        key = _key(condition.labels())
        problem = _difference(there[key], again, elsewhere)
        checks.append(Check(f"recomputed: {' '.join(key)}", problem))
    return checks


def _asked(results: Results) -> Prompts:
    """Returns the prompts that the sweep asked, in its order."""
    assert results.folder is not None
    prompts = read_prompts(results.folder / "prompts.parquet").held_out
    named = pd.MultiIndex.from_frame(prompts.frame[["relation", "language"]])
    return judged(prompts, named.isin(results.ranking.pairs))


def _by_condition(effects: pd.DataFrame) -> dict[tuple[str, ...], pd.DataFrame]:
    plain = effects.astype(dict.fromkeys(CONDITION, str))
    groups = plain.groupby(CONDITION, sort=False).indices
    return {tuple(map(str, key)): effects.iloc[rows] for key, rows in groups.items()}


def _key(labels: dict[str, object]) -> tuple[str, ...]:
    return tuple(str(labels[name]) for name in CONDITION)


def _difference(there: pd.DataFrame, again: pd.DataFrame, elsewhere: bool) -> str:
    """Says how a set's rows differ from those that were recomputed."""
    if len(there) != len(again):
        return f"{len(there)} rows there, {len(again)} now"
    exact = all((there[name].to_numpy() == again[name].to_numpy()).all() for name in _OTHERS)
    exact &= all(
        there[name].to_numpy(np.float32).tobytes() == again[name].to_numpy(np.float32).tobytes()
        for name in _FLOATS
    )
    if exact:
        return ""
    apart = _apart(there, again)
    if apart > _ROUNDING or not _sure_agree(there, again):
        return f"other outcomes: log-probabilities differ by up to {apart:.2g}"
    if elsewhere:
        return ""
    return (
        f"equal but for rounding (log-probabilities within {apart:.1g}), not bit for bit. Another "
        "machine, other versions or another number of threads cause that; --elsewhere accepts it"
    )


def _apart(there: pd.DataFrame, again: pd.DataFrame) -> float:
    """Returns the largest difference of a log-probability; infinite where other prompts were asked."""
    if (there["prompt_id"].to_numpy() != again["prompt_id"].to_numpy()).any():
        return float("inf")
    names = ["logprob_intact", "logprob", "margin_intact", "margin"]
    pair = (there[names].to_numpy(), again[names].to_numpy())
    if (np.isnan(pair[0]) != np.isnan(pair[1])).any():
        return float("inf")
    return float(np.nan_to_num(np.abs(pair[0] - pair[1])).max(initial=0.0))


def _sure_agree(there: pd.DataFrame, again: pd.DataFrame) -> bool:
    """Whether correctness agrees wherever the margin is not within rounding of 0."""
    agree = True
    for margin, correct in (("margin_intact", "correct_intact"), ("margin", "correct")):
        sure = np.abs(there[margin].to_numpy()) > _SURE
        agree &= bool((there[correct].to_numpy() == again[correct].to_numpy())[sure].all())
    return agree
