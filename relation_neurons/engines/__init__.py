"""Engines: run a job in this process or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

from relation_neurons.ablation.jobs import Engine, LocalEngine
from relation_neurons.engines.ray_engine import RayEngine
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.version import renamed

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "make_engine"]

ENGINES = ("local", "ray")


@renamed(say="log")
def make_engine(
    name: str = "local",
    *,
    address: str | None = None,
    workers: int | None = None,
    log: Callable[[str], None] | None = None,
) -> Engine:
    """Makes an engine by its name; nothing is started yet.

    Args:
        name: `local` or `ray`.
        address: of a Ray cluster that runs, `auto` for the one of this machine; by default one is
            started here.
        workers: how many models are held; see `RayEngine`.
        log: called with each line of what the engine does.

    Raises:
        UnknownOptionError: no such engine, or an option that it does not have.
        EngineError: Ray is not installed.
    """
    if name not in ENGINES:
        raise UnknownOptionError(f"No engine {name!r}. {near_matches(name, ENGINES)}")
    if name == "ray":
        return RayEngine(address=address, workers=workers, log=log)
    if address is not None or workers is not None:
        raise UnknownOptionError(
            "An address and a number of workers are for the engine `ray`; found the engine `local`."
        )
    return LocalEngine()
