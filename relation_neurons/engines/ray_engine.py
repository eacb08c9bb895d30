"""`RayEngine`, which runs jobs on the workers of a Ray cluster, each of which holds the model.

This process plans, reads and writes; workers get and return plain data. So the results folder has one
writer, and its files are the same whichever engine filled it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import pandas as pd
import torch

from relation_neurons.ablation.jobs import Job
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.neuron_sites import weight_hash
from relation_neurons.engines.sizes import MOST_THREADS, Size, choose_size
from relation_neurons.errors import EngineError, UnknownOptionError
from relation_neurons.inference.forward import hooked_at
from relation_neurons.inference.stock_model import changed_module
from relation_neurons.models.provenance import change_since_loaded, fingerprints, loaded_from
from relation_neurons.version import package_versions, renamed

__all__ = ["RayEngine"]

_STORE_BYTES = 256 << 20
"""Of a cluster started here; what is sent is a few megabytes."""

_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


class RayEngine:
    """Runs jobs on a Ray cluster, one ablated set after another on each worker.

    Workers load the model themselves, by the name or path that it was loaded from here, when the engine is
    first used; their weights and package versions have to be this process's.

    Args:
        address: of a cluster that runs (`auto`, `10.0.0.1:6379`); by default one is started on this
            machine, and ended with the engine.
        workers: how many models are held: by default one per GPU, else one per `threads` cores.
        threads: CPU threads of a worker; by default as many as this process uses, 4 at most, and fewer
            where more workers are asked for. With this process's number, tables have the same bytes.
        log: called with each line of what happens.

    Raises:
        EngineError: Ray is not installed.
        UnknownOptionError: fewer than one worker or thread.
    """

    @renamed(say="log")
    def __init__(
        self,
        *,
        address: str | None = None,
        workers: int | None = None,
        threads: int | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        for what, number in (("workers", workers), ("threads", threads)):
            if number is not None and number < 1:
                raise UnknownOptionError(f"{what} is {number}; expected 1 or more.")
        if importlib.util.find_spec("ray") is None:
            raise EngineError(
                'Ray is not installed. In your checkout: pip install -c constraints.txt -e ".[ray]"'
            )
        self._address, self._workers, self._threads = address, workers, threads
        self._log = log or (lambda line: None)
        self._pool: Any = None
        self._size: Size | None = None
        self._held: tuple[Any, ...] = ()
        self._owns = False

    def __repr__(self) -> str:
        size = f"{self._size.workers} workers" if self._size else "not started"
        return f"RayEngine({self._address or 'on this machine'}; {size})"

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def processes(self) -> list[int]:
        """The processes of the workers that have loaded the model."""
        return [] if self._pool is None else self._pool.processes

    def check(self, model: HookedModel) -> None:
        """Refuses a model that workers could not load, or would load differently from how it is here.

        Raises:
            EngineError: it was made in this process and has no name or path, it was changed since it was
                loaded, or something is hooked to it.
        """
        if loaded_from(model) is None:
            raise EngineError(
                "The model was made or held in this process, and workers load theirs by a name or a "
                "path. Save it as a folder in Hugging Face format and load that with load_model(folder) "
                "(planted_model takes a folder too), or use the engine `local`."
            )
        changed = change_since_loaded(model) or changed_module(model)
        if changed:
            raise EngineError(
                f"{changed} is not what was loaded: the model was changed in this process, and workers load "
                f"theirs from {loaded_from(model)}. Save it as a folder in Hugging Face format and load "
                "that, load it again, or use the engine `local`."
            )
        hooked = hooked_at(model)
        if hooked:
            raise EngineError(
                f"Something is hooked to the model ({hooked}), which workers do not have. Remove it "
                "(model.reset_hooks(including_permanent=True) removes TransformerLens's hooks), end the "
                "ablation that is open, or use the engine `local`."
            )

    def work(
        self, model: HookedModel, job: Job, indices: Sequence[int]
    ) -> Iterator[tuple[int, pd.DataFrame]]:
        """Yields each index with its table, in the order in which they are finished.

        Raises:
            EngineError: no cluster, no room in it, other weights there, or no worker left; or what
                `check` refuses.
            ModelLoadError: a worker cannot load the model.
        """
        self.check(model)
        self._require_pool_of(model)
        kind = torch.device(str(model.cfg.device)).type
        with _off_the_gpu(model):
            yield from self._started(model, kind).work(job, indices)

    def describe(self) -> dict[str, Any] | None:
        """Returns where tables were computed; None before the first one."""
        if self._size is None:
            return None
        return {
            "engine": "ray",
            "address": self._address or "started for the run",
            "workers": self._size.workers,
            "threads": self._size.threads,
        }

    def close(self) -> None:
        """Ends the workers, and the cluster where it was started here."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
        if self._owns:
            self._owns = False
            import ray

            ray.shutdown()

    def _require_pool_of(self, model: HookedModel) -> None:
        """Ends workers that hold another model, or this one as it was before it was changed."""
        held = (loaded_from(model), model.cfg.dtype, fingerprints(model))
        if held != self._held and self._pool is not None:
            self._pool.stop()
            self._pool = None
        self._held = held

    def _started(self, model: HookedModel, device: str) -> Any:
        """Returns the pool, which the first call starts."""
        if self._pool is not None:
            return self._pool
        from relation_neurons.engines.pool import Pool
        from relation_neurons.engines.worker import Worker

        ray = self._connected()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = self._threads or min(torch.get_num_threads(), MOST_THREADS)
        size = choose_size(nodes, gpu=device == "cuda", workers=self._workers, threads=most)
        self._log(
            f"ray: {size.workers} workers of {size.threads} threads"
            + (" and a GPU" if size.gpus else "")
        )
        source = str(loaded_from(model))
        expected = {"weight_hash": weight_hash(model), "versions": package_versions()}
        actor = ray.remote(Worker).options(num_cpus=size.threads, num_gpus=size.gpus)
        dtype = str(model.cfg.dtype).removeprefix("torch.")
        start = partial(actor.remote, source, dtype, device, size.threads, expected)
        self._size, self._pool = size, Pool(ray, start, size.workers, source, self._log)
        return self._pool

    def _connected(self) -> Any:
        """Connects to the cluster, or starts one."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if ray.is_initialized():
            return ray
        try:
            if self._address is not None:
                ray.init(address=self._address, **_QUIET)
            else:
                self._start_here(ray)
        except Exception as error:  # Ray raises ConnectionError, ValueError, Exception itself, …
            where = f"at {self._address}" if self._address else "on this machine"
            raise EngineError(
                f"No Ray cluster {where}: {' '.join(str(error).split())} `ray status` says what there "
                "is; without an address one is started on this machine."
            ) from error
        self._owns = True
        return ray

    def _start_here(self, ray: Any) -> None:
        """Starts a cluster; Ray allows its parts 30 s, which is too little on a very busy machine."""
        for tries_left in (2, 1, 0):
            try:
                ray.init(
                    address="local",
                    num_cpus=self._more_cpus_than_there_are(),
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    **_QUIET,
                )
                return
            except Exception as error:
                ray.shutdown()
                if not tries_left or "timed out during startup" not in str(error):
                    raise
                self._log("ray: the cluster did not start in 30 s; trying again")

    def _more_cpus_than_there_are(self) -> int | None:
        """Where more workers are asked for than there are cores, they share them."""
        there = os.cpu_count() or 1
        return self._workers if self._workers is not None and self._workers > there else None


@contextlib.contextmanager
def _off_the_gpu(model: HookedModel) -> Iterator[None]:
    """Moves this process's model to the CPU while workers need the GPU, and each weight back afterwards."""
    if torch.device(str(model.cfg.device)).type != "cuda":
        yield
        return
    weights = [w for module in model.modules() for w in _own_tensors(module)]
    devices = [weight.device for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.to("cpu")
        torch.cuda.empty_cache()
        yield
    finally:
        for weight, device in zip(weights, devices, strict=True):
            weight.data = weight.data.to(device)


def _own_tensors(module: torch.nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
