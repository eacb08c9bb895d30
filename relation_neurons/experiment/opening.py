"""The opening of a run: what is checked and noted before the first forward pass.

`rn.run` and the commands `run`, `rank` and `compare-criteria` all begin here, so they refuse the same
mistakes: first what shows without a model, then what shows with one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import neuron_count
from relation_neurons.errors import ResultsError, TooFewFactsError
from relation_neurons.relations.loading import load_relations
from relation_neurons.relations.relation import Relation
from relation_neurons.relations.selection import (
    common_facts,
    draw_facts,
    drop_copied,
    limit_objects,
)
from relation_neurons.relations.split import choose_templates, require_links
from relation_neurons.results.manifest import make_manifest
from relation_neurons.results.options import Options, make_options
from relation_neurons.results.plan import Plan
from relation_neurons.results.table_store import TableStore
from relation_neurons.storage.files import read_json, write_json
from relation_neurons.storage.memmap import parse_size
from relation_neurons.storage.run_folder import (
    locked,
    move_aside,
    open_run_folder,
    require_folder,
)

__all__ = [
    "RunRequest",
    "across_languages",
    "choose_facts",
    "open_comparison_folder",
    "open_run",
    "request_run",
]

COMPARISON = "comparison.json"
"""The manifest of a comparison of criteria."""


@dataclass(frozen=True)
class RunRequest:
    """The data and options of a run, checked as far as they can be without a model."""

    relations: tuple[Relation, ...]
    options: Options


def request_run(
    relations: Any,
    options: Mapping[str, Any],
    *,
    preset: str = "default",
    out: Path | None = None,
    memory: str | int | None = None,
    languages: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> RunRequest:
    """Checks what shows without a model, and chooses the facts of the run.

    Args:
        relations: anything that `load_relations` reads, and so are languages and names.
        options: fields of `Options`; None leaves the preset's choice.
        preset: `default` or `paper`.
        out: the results folder.
        memory: what the activation table may take in memory.

    Raises:
        ResultsError: `out` is a file.
        UnknownOptionError: an option that does not exist, or a value that it cannot have.
        RelationFormatError: relations that cannot be read, or are not linked across languages.
        TooFewFactsError: too few facts or relations are left.
    """
    if out is not None:
        require_folder(out)
    chosen = make_options(preset, **options)
    parse_size(memory)
    data = choose_facts(load_relations(relations, languages=languages, names=names), chosen)
    return RunRequest(data, across_languages(chosen, data, stated=options))


@contextlib.contextmanager
def open_run(
    model: HookedModel,
    request: RunRequest,
    store: TableStore,
    *,
    sites: Sequence[str] = (),
    force_new: bool = False,
    open_folder: Callable[[Path, dict[str, Any]], None] = open_run_folder,
) -> Iterator[dict[str, Any]]:
    """Checks a request against the model, and holds the results folder while the context is open.

    Args:
        model: what `load_model` returns.
        request: what `request_run` returns.
        store: the results folder, if any, and where notes are logged.
        sites: all sites at which neurons are ablated; that of the options by default.
        force_new: first moves a folder that exists aside.
        open_folder: starts the folder for the manifest, or finds that it belongs to this very run.

    Yields:
        The manifest of the run.

    Raises:
        DoseError: a dose above the number of neurons at a site.
        UnknownSiteError: a site that the model does not have.
        ResultsError: the folder holds another run, or another process is writing it.
    """
    for site in sites or (request.options.site,):
        Plan(request.options, neuron_count(model, site))
    for note in _wording_notes(request):
        store.log(note)
    manifest = make_manifest(model, request.relations, request.options)
    if store.folder is None:
        yield manifest
        return
    moved = move_aside(store.folder) if force_new else None
    if moved is not None:
        store.log(f"moved what was there to {moved}")
    with locked(store.folder):
        open_folder(store.folder, manifest)
        yield manifest


def _wording_notes(request: RunRequest) -> Iterator[str]:
    """Names the relations that are judged on the wordings that their neurons were found on."""
    options = request.options
    for relation in request.relations:
        detect, judge = choose_templates(
            relation, options.hold_out_templates, options.single_template
        )
        if judge == detect and not options.single_template:
            yield (
                f"note: {relation.name} ({relation.language}) holds out no wording; it is judged on "
                "those it is found on"
            )


def choose_facts(relations: Sequence[Relation], options: Options) -> tuple[Relation, ...]:
    """Leaves out the facts that the options leave out, the same in each language of a relation.

    Raises:
        RelationFormatError: a relation in several languages whose facts are not linked.
        TooFewFactsError: nothing is left, or one relation only where the contrast needs two.
    """
    require_links(relations)
    chosen = list(relations)
    if options.drop_copied:
        chosen = [drop_copied(relation) for relation in chosen]
    if options.max_object_share is not None:
        share = options.max_object_share
        chosen = [
            limit_objects(relation, share, seed=options.seed) for relation in common_facts(chosen)
        ]
    if options.max_facts is not None:
        count = options.max_facts
        chosen = [draw_facts(one, count, seed=options.seed) for one in common_facts(chosen)]
    if (options.drop_copied, options.max_object_share, options.max_facts) != (False, None, None):
        chosen = common_facts(chosen)
    alone = [one for one in chosen if sum(one.language == o.language for o in chosen) < 2]
    if options.contrast == "specific" and len(alone) == len(chosen):
        raise TooFewFactsError(
            "The contrast `specific` tells a relation from others of its language, so it takes two. Add a "
            "relation, or use the contrast `background` (neutral prompts)."
        )
    return tuple(chosen)


def across_languages(
    options: Options, relations: Sequence[Relation], *, stated: Mapping[str, Any]
) -> Options:
    """With several languages, also ablates the `background` sets, with a control.

    Versatility is read from them, and so is transfer; unless the checks were stated.
    """
    several = len({relation.language for relation in relations}) > 1
    if not several or stated.get("checks") is not None or options.preset == "paper":
        return options
    checks = tuple(dict.fromkeys((*options.checks, "background")))
    checks = tuple(check for check in checks if check != options.contrast)
    draws = options.check_draws if stated.get("check_draws") is not None else 1
    return replace(options, checks=checks, check_draws=draws)


def open_comparison_folder(
    folder: Path, manifest: dict[str, Any], *, comparison: dict[str, Any]
) -> None:
    """Starts a comparison, or continues one with the same options; criteria and sites may be added.

    Raises:
        ResultsError: the folder holds a comparison with other options (pitfall 19).
    """
    path = folder / COMPARISON
    manifest = {**manifest, "comparison": comparison}
    if path.exists():
        there, here = (
            {**part, **part.get("options", {})}
            for part in (read_json(path), json.loads(json.dumps(manifest)))
        )
        for name in sorted(({*there, *here}) - {"comparison", "options"}):
            if there.get(name) != here.get(name):
                raise ResultsError(
                    f"{folder} holds a comparison with another {name}"
                    f"{_shown(there.get(name), here.get(name))}. Give another --out, or move that folder "
                    "away."
                )
    elif (folder / "parts").exists():
        raise ResultsError(
            f"{folder} holds parts of a comparison and no {COMPARISON} that describes it. Give another "
            "--out, or delete the parts."
        )
    write_json(path, manifest)


def _shown(there: Any, here: Any) -> str:
    """Says both values where they are short."""
    long = isinstance(there, (dict, list)) and len(there) > 3
    return "" if long else f" ({there!r} there, {here!r} here)"
