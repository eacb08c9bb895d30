"""The manifest of a run: write, read and compare what decides its tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import neuron_count, weight_hash
from relation_neurons.errors import ResultsError
from relation_neurons.relations.relation import Relation
from relation_neurons.results.options import Options
from relation_neurons.storage.files import plain
from relation_neurons.storage.run_folder import first_difference
from relation_neurons.version import package_versions

__all__ = ["describe_model", "make_manifest", "read_options", "require_ranked_by"]

_KEYS: dict[str, str] = {"contrast": "score"}
"""Options whose key in a manifest is an earlier name of theirs."""
_BEFORE: dict[str, Any] = {"home_draws": 0, "overlap_deals": 0}
"""What runs did that were made before there was an option."""
_NAMES: dict[str, str] = {key: name for name, key in _KEYS.items()}


def require_ranked_by(folder: Path, manifest: dict[str, Any], model: HookedModel) -> None:
    """Refuses to ablate with other versions, weights, dtype or device than the folder was ranked with.

    All tables of a run are made with what its manifest states. The model's name may differ, as it may
    have moved; its weights may not.

    Args:
        folder: the results folder, for the message.
        manifest: the folder's.
        model: the one to ablate.

    Raises:
        ResultsError: the first difference is named.
    """
    model_here = describe_model(model, manifest["options"].get("site", "post"))
    for part, here in (("versions", package_versions()), ("model", model_here)):
        there = {**manifest.get(part, {}), **_name(here)}
        difference = first_difference(there, plain(here), part)
        if difference:
            raise ResultsError(
                f"{folder} was ranked otherwise: {difference}. Ablate with what it was ranked with, or "
                "rank again into another --out."
            )


def _name(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key == "name"}


def make_manifest(
    model: HookedModel, relations: Sequence[Relation], options: Options
) -> dict[str, Any]:
    """Describes a run completely: the same manifest, the same tables."""
    tokenizer = model.tokenizer
    prepended = tokenizer("")["input_ids"]
    described = [_describe(relation) for relation in relations]
    return {
        "options": _recorded(options),
        "seed": options.seed,
        "model": describe_model(model, options.site),
        "relations": described,
        "relation_data_hash": _hash([_data(relation) for relation in relations]),
        "bos": tokenizer.decode(prepended) if prepended else "none",
        "padding": "left, masked; the first attended position is "
        + ("pooled" if options.pool == "include_first" else "not pooled")
        + (" and ablated" if options.positions == "all" else " and not ablated"),
        "versions": package_versions(),
        # Without this, a folder from before neutral prompts had examples in front would be continued.
        **({"neutral_prompts": "behind the relations' examples"} if options.shots else {}),
    }


def _recorded(options: Options) -> dict[str, Any]:
    """Returns the options under the names that they have in folders on disk."""
    return {_KEYS.get(k, k): v for k, v in asdict(options).items() if k != "seed"}


def describe_model(model: HookedModel, site: str) -> dict[str, Any]:
    """Describes what of a model decides a run's numbers."""
    return {
        "name": model.cfg.model_name,
        "weight_hash": weight_hash(model),
        "n_layers": model.cfg.n_layers,
        "d_mlp": model.cfg.d_mlp,
        "n_neurons": neuron_count(model, site),
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
        "device": str(model.cfg.device),
    }


def _describe(relation: Relation) -> dict[str, Any]:
    answer, share = relation.majority()
    return {
        "name": relation.name,
        "language": relation.language,
        "description": relation.description,
        "facts": len(relation.facts),
        "years": sorted({fact.year for fact in relation.facts if fact.year is not None}),
        "source": relation.source,
        "copied": relation.copied(),
        "templates": [{"text": t.text, "form": t.form, "side": t.side} for t in relation.templates],
        "rows": dict(relation.notes),
        "majority_object": answer,
        "majority_share": share,
    }


def _data(relation: Relation) -> list[Any]:
    """Returns what identifies a relation, wherever it was read from."""
    facts, templates = ([asdict(x) for x in part] for part in (relation.facts, relation.templates))
    return [relation.name, relation.language, facts, templates]


def _hash(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def read_options(manifest: dict[str, Any]) -> Options:
    """Reads the options that a manifest records.

    Raises:
        ResultsError: another version of the package made it, with other options.
    """
    saved = dict(manifest["options"])
    try:
        for name in ("doses", "checks"):
            saved[name] = tuple(saved[name])
        named: dict[str, Any] = {
            _NAMES.get(str(key), str(key)): value for key, value in saved.items()
        }
        return Options(**{**_BEFORE, **named}, seed=manifest["seed"])
    except (TypeError, KeyError) as error:
        raise ResultsError(
            f"The folder was made by another version of this package: {error}. Run it again into another folder."
        ) from error
