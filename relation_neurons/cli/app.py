"""The command line: the experiment, its stages, and what there is to run it on.

Exit code 0, or 2 with one line on bad input; never a traceback for a user's mistake.
"""

from __future__ import annotations

import sys

import typer

from relation_neurons.cli.cli_models import models
from relation_neurons.cli.compare import compare_scores
from relation_neurons.cli.neuron import neuron
from relation_neurons.cli.overlap import overlap
from relation_neurons.cli.relations import relations_app
from relation_neurons.cli.run import rank, run
from relation_neurons.cli.stages import ablate, report
from relation_neurons.cli.verify import verify
from relation_neurons.errors import RelationNeuronsError

app = typer.Typer(
    help="Find relation-specific neurons, ablate them, and read what that shows.\n\n"
    "Start with: relation-neurons run --model smollm2-135m --relations demo --out results/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _command in (run, rank, ablate, report, verify, compare_scores, neuron, overlap, models):
    app.command()(_command)
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
