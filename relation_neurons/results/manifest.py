"""The second stage: whether a folder that `rank` left can go on in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import ResultsError
from relation_neurons.results.options import describe_model, package_versions
from relation_neurons.storage.files import plain
from relation_neurons.storage.run_folder import first_difference

__all__ = ["require_ranked_by"]


def require_ranked_by(folder: Path, manifest: dict[str, Any], model: HookedModel) -> None:
    """Refuses to ablate with other versions, weights, dtype or device than the folder was ranked with.

    The tables of a run are of one kind, which its manifest states. The model's name may differ, as it
    may have moved; its weights may not.

    Args:
        folder: the results folder, for the message.
        manifest: the folder's.
        model: what is to be ablated.

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
                "rank anew into another --out."
            )


def _name(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key == "name"}
