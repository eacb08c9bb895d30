"""Engines: where the ablated sets of a run are worked off, this process or the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

from relation_neurons.ablation.jobs import Engine, LocalEngine
from relation_neurons.engines.ray_engine import RayEngine
from relation_neurons.errors import UnknownOptionError, near_matches

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "make_engine"]

ENGINES = ("local", "ray")


def make_engine(
    name: str = "local",
    *,
    address: str | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Engine:
    """Gives an engine by its name; nothing is started yet.

    Args:
        name: `local` or `ray`.
        address: of a Ray cluster that runs, `auto` for the one of this machine; by default one is
            started here.
        workers: how many models are held; see `RayEngine`.
        say: told what the engine does, a line at a time.

    Raises:
        UnknownOptionError: no such engine, or an option that it does not have.
        EngineError: Ray is not installed.
    """
    if name not in ENGINES:
        raise UnknownOptionError(f"No engine {name!r}. {near_matches(name, ENGINES)}")
    if name == "ray":
        return RayEngine(address=address, workers=workers, say=say)
    if address is not None or workers is not None:
        raise UnknownOptionError(
            "An address and a number of workers are for the engine `ray`; found the engine `local`."
        )
    return LocalEngine()
