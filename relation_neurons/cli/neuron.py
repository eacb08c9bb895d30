"""The command line's part on single neurons: the card of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relation_neurons.cli.options import count_or_share, load_noted_model
from relation_neurons.errors import UnknownOptionError

__all__ = ["neuron"]


def neuron(
    name: Annotated[str, typer.Argument(help="The neuron, such as L16N302.")],
    out: Annotated[
        Path | None, typer.Option(help="A results folder: its model, prompts and ranking.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Without --out, as in `run`; with it, the model if it moved.")
    ] = None,
    relations: Annotated[str | None, typer.Option(help="Without --out, as in `run`.")] = None,
    languages: Annotated[str | None, typer.Option(help="Without --out, as in `run`.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="Without --out: facts set aside; 20 by default.")
    ] = None,
    min_known: Annotated[
        int | None, typer.Option(help="Without --out: known facts a relation needs on either side.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Without --out: of the split.")] = None,
    ablate: Annotated[
        bool, typer.Option(help="Ablate the neuron alone on the held-out facts.")
    ] = True,
    top: Annotated[int, typer.Option(help="Prompts shown at either end.")] = 8,
    tokens: Annotated[int, typer.Option(help="Promoted and demoted tokens shown.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Also write the card as a page.")] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts a pass.")] = 64,
    dtype: Annotated[str | None, typer.Option(help="Without --out, as in `run`.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.")] = None,
) -> None:
    """The card of one neuron: what it writes, detects, and does when ablated alone."""
    from rich.console import Console

    from relation_neurons.neurons import parse_neuron
    from relation_neurons.report.build_card import neuron_card
    from relation_neurons.storage.files import write_text

    which = parse_neuron(name)  # what is wrong shows before the model loads
    fresh = {
        "relations": relations,
        "languages": languages,
        "held_out": held_out,
        "min_known": min_known,
        "seed": seed,
        "dtype": dtype,
    }
    if out is None:
        loaded, source = _fresh(model, device, fresh)
    else:
        _require_none(fresh)
        loaded, source = _saved(out, model, device)
    card = neuron_card(
        loaded,
        which,
        source,
        top=top,
        tokens=tokens,
        ablate=ablate,
        min_known=min_known,
        batch_size=batch_size,
    )
    Console().print(card.table())
    if html is not None:
        write_text(html, card.to_html(page=True))
        typer.echo(f"card: {html}")


def _saved(out: Path, model: str | None, device: str | None) -> tuple[Any, Any]:
    """Reads a results folder and loads the model that it was made with."""
    from relation_neurons.results.results import load_results

    results = load_results(out)
    return load_noted_model(out, results.manifest["model"], model, device), results


def _fresh(model: str | None, device: str | None, given: dict[str, Any]) -> tuple[Any, Any]:
    """Loads a model and makes prompts from relations."""
    from relation_neurons.models.loading import load_model
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.relations.prompts import make_prompts
    from relation_neurons.results.options import make_options

    options = make_options(
        held_out=count_or_share(20 if given["held_out"] is None else given["held_out"]),
        min_known=given["min_known"],
        seed=given["seed"],
    )
    data = load_relations(given["relations"] or "demo", languages=given["languages"])
    loaded = load_model(model or "smollm2-135m", dtype=given["dtype"], device=device)
    prompts = make_prompts(
        data,
        loaded.tokenizer,
        held_out=options.held_out,
        nonsense=options.nonsense,
        seed=options.seed,
    )
    return loaded, prompts


def _require_none(given: dict[str, Any]) -> None:
    """A results folder has these choices made already."""
    stated = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if stated:
        raise UnknownOptionError(
            f"{', '.join(stated)} cannot change what a results folder holds; leave out either that or "
            "--out."
        )
