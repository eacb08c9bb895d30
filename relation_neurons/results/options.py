"""The options of a run, their presets, and the values they may have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from relation_neurons.ablation.hooks import POSITIONS
from relation_neurons.activations.pooling import POOLS
from relation_neurons.backends.neuron_sites import SITES
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.inference.recall import BATCH_SIZE
from relation_neurons.neurons import check_doses
from relation_neurons.ranking.criteria import CRITERIA
from relation_neurons.ranking.detection_tasks import CONTRASTS
from relation_neurons.ranking.rank import ORDERS
from relation_neurons.relations.relation import MIN_KNOWN

__all__ = ["PRESETS", "Options", "make_options"]


@dataclass(frozen=True)
class Options:
    """Every choice of a run; the manifest records them all."""

    preset: str = "default"
    held_out: int | float = 50
    """Facts set aside per relation, a count or a share."""
    hold_out_templates: int | None = None
    """Templates a relation is judged on and not found on; None for those its data holds out."""
    single_template: bool = False
    """One template for everything, so that none is held out."""
    shots: int = 0
    """Solved examples in front of each prompt."""
    drop_copied: bool = False
    """Leaves out facts whose answer stands in the subject."""
    max_object_share: int | float | None = None
    """Drops facts until no object answers more than this share of a relation's; None for all."""
    max_facts: int | None = None
    """Draws this many facts of each relation; None for all."""
    nonsense: int = 20
    """Nonsense subjects per relation."""
    pool: str = "mean"
    site: str = "post"
    by: str = "average_precision"
    """The criterion that neurons are ranked by."""
    order: str = "d_prime"
    min_known: int = MIN_KNOWN
    doses: tuple[int | str, ...] = ("0.05%", "0.2%", "0.8%")
    contrast: str = "specific"
    """The ranking swept over all doses with both controls."""
    checks: tuple[str, ...] = ("unknown",)
    """Other rankings ablated at the judged dose."""
    draws: int = 4
    """Draws of the contribution-matched control at each dose."""
    judged_draws: int = 10
    """Draws of it at the dose that the report judges, as the tests rest on their spread; never fewer than
    `draws`, and none where that is 0."""
    home_draws: int | None = None
    """Most draws of it at the judged dose, those beyond `judged_draws` on the relation's own facts alone, one batch after
    another until it is clear whether its set does more harm. None for as many as one relation alone needs to be
    significant, at most 999 (which is too few for one alone of more than some 40 relations; none are drawn where
    they are too few for all that show harm together); 0 for none."""
    layer_draws: int = 1
    """Draws of the control matched on layer alone."""
    check_draws: int = 0
    """Draws of the contribution-matched control for each check."""
    blocks: int = 4
    """Disjoint blocks of neurons, each of the judged dose, ablated alone and jointly; 0 for none."""
    permutations: int = 50
    """Permutations of the labels for the null of the largest average precision; 0 for none."""
    overlap_deals: int = 99
    """Deals of the prompts' roles for the null of overlap; 0 for none."""
    repeats: int = 5
    """Repeats of each split of the facts by which the rankings' stability is measured; 0 for none."""
    max_collateral: int | float | None = None
    """Judges the largest dose whose damage to neutral text stays within this KL (nats a token); None
    for the middle dose."""
    mode: str = "zero"
    positions: str = "no_first"
    batch_size: int = BATCH_SIZE
    seed: int = 0


_LEAST = {
    "seed": 0,
    "batch_size": 1,
    "draws": 0,
    "judged_draws": 0,
    "home_draws": 0,
    "layer_draws": 0,
    "check_draws": 0,
    "blocks": 0,
    "permutations": 0,
    "overlap_deals": 0,
    "repeats": 0,
    "nonsense": 0,
    "min_known": 1,
    "hold_out_templates": 0,
    "shots": 0,
    "max_facts": 2,
}

_EARLIER = {"score": "contrast"}
"""Earlier names of options, still understood."""

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "single_template": True,
        "pool": "include_first",
        "order": "index",
        "positions": "all",
        "doses": ("0.05%", "0.2%", "0.85%"),
        "checks": (),
    },
}
"""`paper` is what the published code does, as far as it is known (docs/method.md)."""


def make_options(preset: str = "default", **changes: Any) -> Options:
    """Returns a preset with changes; a change of None leaves the preset's choice.

    Raises:
        UnknownOptionError: an option, preset, pooling or contrast that does not exist.
    """
    if preset not in PRESETS:
        raise UnknownOptionError(f"No preset {preset!r}. {near_matches(preset, PRESETS)}")
    names = {item.name for item in fields(Options)}
    for earlier, now in _EARLIER.items():
        value = changes.pop(earlier, None)
        if value is not None and changes.get(now) is not None:
            raise UnknownOptionError(f"Both {earlier} and {now} were given; give {now} alone.")
        if value is not None:
            changes[now] = value
    for name in changes:
        if name not in names:
            raise UnknownOptionError(f"No option {name!r}. {near_matches(name, names)}")
    chosen = {name: value for name, value in changes.items() if value is not None}
    for name in {"doses", "checks"} & set(chosen):
        if isinstance(chosen[name], (str, int, float)):
            raise UnknownOptionError(f"{name} is {chosen[name]!r}; expected several, as a tuple.")
        chosen[name] = tuple(dict.fromkeys(chosen[name]))
    options = Options(preset=preset, **{**PRESETS[preset], **chosen})
    if options.contrast in options.checks:
        raise UnknownOptionError(
            f"checks has {options.contrast!r}, which is the contrast itself; expected other rankings."
        )
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or value < least):
            raise UnknownOptionError(f"{name} is {value!r}; expected a whole number from {least}.")
    held_out = options.held_out
    if (
        not isinstance(held_out, (int, float))
        or not 0 < held_out < float("inf")
        or (held_out > 1 and held_out != int(held_out))
    ):
        raise UnknownOptionError(
            f"held_out is {options.held_out!r}; expected a count, or a share below 1."
        )
    for name in ("permutations", "overlap_deals"):
        if 0 < getattr(options, name) < 19:
            raise UnknownOptionError(
                f"{name} is {getattr(options, name)}; expected 0, or 19 and more: with fewer no p-value "
                "is as low as 0.05."
            )
    budget = options.max_collateral
    if budget is not None and not (isinstance(budget, (int, float)) and 0 < budget < float("inf")):
        raise UnknownOptionError(
            f"max_collateral is {budget!r}; expected nats per token above 0, such as 0.05."
        )
    share = options.max_object_share
    if share is not None and not (isinstance(share, (int, float)) and 0 < share <= 1):
        raise UnknownOptionError(f"max_object_share is {share!r}; expected a share from 0 to 1.")
    choices: list[tuple[str, str, Iterable[str]]] = [
        ("pooling", options.pool, POOLS),
        ("site", options.site, SITES),
        ("criterion", options.by, CRITERIA),
        ("order", options.order, ORDERS),
        ("mode", options.mode, ("zero", "mean")),
        ("positions", options.positions, POSITIONS),
        ("contrast", options.contrast, CONTRASTS),
        *(("ranking in checks", check, CONTRASTS) for check in options.checks),
    ]
    for name, value, known in choices:
        if value not in known:
            raise UnknownOptionError(f"No {name} {value!r}. {near_matches(value, known)}")
    check_doses(options.doses)
    return options
