"""Download and verification of the LRE relations, which are not shipped.

LRE is the data (MIT) of *Linearity of Relation Decoding in Transformer Language Models*. `fetch_lre`
downloads the published files of one pinned commit into the cache folder and verifies each by its SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from relation_neurons.errors import RelationFormatError, UnknownRelationError
from relation_neurons.storage.files import cache_folder, share
from relation_neurons.version import renamed

__all__ = ["fetch_lre", "lre_folder"]

_SOURCE = "https://raw.githubusercontent.com/{repository}/{commit}/{folder}/"
_VARIABLE = "RELATION_NEURONS_LRE_URL"


@renamed(say="log")
def fetch_lre(
    folder: str | Path | None = None, *, log: Callable[[str], None] | None = None
) -> Path:
    """Downloads the published LRE files that are missing, and verifies all of them.

    Args:
        folder: where to put them; the user's cache folder by default, where `load_relations("lre")`
            finds them.
        log: called with a line that says what was done.

    Returns:
        The folder.

    Raises:
        RelationFormatError: a file could not be downloaded, or is not the published one. Files that
            were verified before it are kept.
    """
    import pooch

    listed = _listed()
    target = Path(folder) if folder is not None else _default_folder()
    url = os.environ.get(_VARIABLE) or _SOURCE.format(**listed)
    fetcher = pooch.create(
        path=target,
        base_url=url if url.endswith("/") else f"{url}/",
        registry={name: f"sha256:{digest}" for name, digest in listed["sha256"].items()},
        retry_if_failed=1,
    )
    pooch.get_logger().setLevel("ERROR")
    for name in sorted(listed["sha256"]):
        try:
            new = not (target / name).exists()
            path = Path(fetcher.fetch(name))
            if new:
                share(path)
        except ValueError as error:  # the hash differs
            raise RelationFormatError(
                f"{name} from {url} is not the published file: its SHA-256 differs from "
                f"{listed['sha256'][name]}. It was not kept. Try again, or look for a proxy or "
                "mirror that changes the file."
            ) from error
        except (
            Exception
        ) as error:  # a socket, a proxy, a status, a full disk: all are reported alike
            raise RelationFormatError(
                f"{name} could not be downloaded from {url} ({type(error).__name__}). Without a network, "
                f"download the folder '{listed['folder']}' of the repository {listed['repository']} at "
                f"commit {listed['commit']} elsewhere and copy its files into {target}; the same "
                "command then verifies them."
            ) from error
    if log is not None:
        log(f"lre: {len(listed['sha256'])} files verified in {target}")
    return target


def lre_folder() -> Path:
    """Returns the folder that `fetch_lre` filled.

    Raises:
        UnknownRelationError: the files were not fetched, or some are missing.
    """
    folder = _default_folder()
    listed = _listed()["sha256"]
    missing = [name for name in listed if not (folder / name).is_file()]
    if missing:
        raise UnknownRelationError(
            f"The LRE relations are not here ({len(missing)} of {len(listed)} files are missing in "
            f"{folder}). Download them with: relation-neurons relations fetch lre"
        )
    return folder


def _default_folder() -> Path:
    return cache_folder() / "lre" / _listed()["commit"][:12]


def _listed() -> dict[str, Any]:
    path = resources.files("relation_neurons") / "data" / "lre.json"
    listed: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return listed
