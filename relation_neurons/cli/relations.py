"""The command line's part on relations: example, list, show, check, fetch and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relation_neurons.cli.options import AskedModel, HeldOut, MinKnown, Seed, Shots
from relation_neurons.errors import UnknownRelationError
from relation_neurons.relations.relation import MIN_KNOWN

relations_app = typer.Typer(
    help="The relations shipped with the package, and your own.", no_args_is_help=True
)

Languages = Annotated[str | None, typer.Option(help="en,de,… or all.")]


@relations_app.command("example")
def relations_example(
    out: Annotated[
        Path, typer.Option(help="The file to write; none that is there is replaced.")
    ] = Path("my_facts.csv"),
) -> None:
    """Write a small spreadsheet of three relations, to run as it is and to put your own facts into."""
    from relation_neurons.relations.shipped import write_example

    write_example(out)
    typer.echo(
        f"written: {out}; put your own facts into it, then: relation-neurons relations check {out} "
        "--model smollm2-135m --shots 3"
    )


@relations_app.command("list")
def relations_list() -> None:
    """List the shipped sets and their relations."""
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.relations.shipped import list_shipped

    for name in list_shipped():
        loaded = load_relations(name, languages="all")
        english = [relation for relation in loaded if relation.language == "en"]
        typer.echo(f"{name}: {len(english)} relations")
        for relation in english:
            spoken = [r.language for r in loaded if r.name == relation.name and r is not relation]
            typer.echo(
                f"  {relation.name}: {len(relation.facts)} facts, {len(relation.templates)} "
                f"templates{', also ' + ' '.join(spoken) if spoken else ''} - {relation.description}"
            )


@relations_app.command("show")
def relations_show(name: str, languages: Languages = None) -> None:
    """Show a relation's templates, source and first facts."""
    from relation_neurons.relations.loading import load_relations

    for relation in load_relations(name, languages=languages):
        answer, share = relation.majority()
        typer.echo(
            f"{relation.name} ({relation.language}): {relation.description}\nsource: {relation.source}"
        )
        typer.echo(f"{len(relation.facts)} facts; majority answer {answer} ({share:.0%})")
        for template in relation.templates:
            typer.echo(f"  {template.side} {template.form}: {template.text}")
        for fact in relation.facts[:8]:
            year = f" ({fact.year})" if fact.year is not None else ""
            typer.echo(f"  {fact.subject} -> {' | '.join(fact.objects)}{year}")


@relations_app.command("check")
def relations_check(
    source: str,
    languages: Languages = None,
    model: AskedModel = None,
    held_out: HeldOut = None,
    shots: Shots = None,
    min_known: MinKnown = None,
    seed: Seed = None,
) -> None:
    """Say what is in a file before anything runs; exit code 1 where a run would stop.

    A line per finding with its count and the first examples. STOPS marks those that would stop a run; all
    others are for you to judge. With --model the model is asked as `run` asks it: how many facts it knows
    in each wording, and which relations would be ranked.
    """
    from relation_neurons.cli.known import ask_and_say, asking
    from relation_neurons.relations.checks import check_relations

    asked = asking(model, held_out=held_out, shots=shots, min_known=min_known, seed=seed)
    findings = check_relations(source, languages=languages)
    for (name, language), part in findings.groupby(["relation", "language"], sort=False):
        typer.echo(f"{name} ({language})" if language else name)
        for row in part.itertuples():
            mark = "STOPS " if row.stops else ""
            typer.echo(f"  {mark}{row.finding}: {row.count:,}{_shown(row.examples)}")
    stopping = int(findings["stops"].sum())
    if stopping:
        typer.echo(
            f"{stopping} finding{'s' if stopping > 1 else ''} would stop a run; mend what STOPS"
        )
        raise typer.Exit(1)
    if model is None:
        typer.echo(
            "nothing would stop a run. No model was asked: --model smollm2-135m says which facts it "
            f"knows, of which a relation needs {MIN_KNOWN} to find neurons on and {MIN_KNOWN} others "
            "to judge on"
        )
    elif not ask_and_say(model, source, languages, asked).ranked:
        raise typer.Exit(1)


@relations_app.command("fetch")
def relations_fetch(
    name: str,
    out: Annotated[
        Path | None, typer.Option(help="The folder; the user's cache by default.")
    ] = None,
) -> None:
    """Fetch published relations, each file verified: lre (MIT)."""
    from relation_neurons.relations.lre import fetch_lre

    if name != "lre":
        raise UnknownRelationError(f"Nothing is known of {name!r}; expected lre.")
    folder = fetch_lre(out, log=typer.echo)
    typer.echo(f"use: --relations {'lre' if out is None else folder}")


@relations_app.command("convert")
def relations_convert(
    source: str,
    out: Path,
    format: Annotated[
        str | None, typer.Option(help="csv, tsv, jsonl, json or lre; by the suffix of OUT.")
    ] = None,
    languages: Languages = None,
) -> None:
    """Write relations in another format."""
    from relation_neurons.relations.loading import load_relations
    from relation_neurons.relations.saving import save_relations

    written = save_relations(load_relations(source, languages=languages), out, format=format)
    typer.echo(f"written: {len(written)} file{'s' if len(written) > 1 else ''} at {out}")


def _shown(examples: str) -> str:
    return f" - {examples}" if examples else ""
