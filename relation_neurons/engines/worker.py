"""One worker: a process that holds a model and makes the tables it is asked for.

Messages are plain data: text, numbers, and tables as the bytes of parquet files. Errors are sent back as
data too, so that no exception of this process has to be rebuilt in another.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from relation_neurons.ablation.jobs import Job
from relation_neurons.ablation.prompt_job import PromptJob
from relation_neurons.ablation.text_job import TextJob
from relation_neurons.backends.neuron_sites import weight_hash
from relation_neurons.errors import EngineError
from relation_neurons.inference.out_of_memory import is_out_of_memory
from relation_neurons.models.loading import load_model
from relation_neurons.storage.chunks import packed
from relation_neurons.version import package_versions

__all__ = ["Worker", "job_message"]

_KINDS: dict[str, type[PromptJob] | type[TextJob]] = {
    "PromptJob": PromptJob,
    "TextJob": TextJob,
}


def job_message(job: Job) -> dict[str, Any]:
    """Returns a job as the message that a worker takes."""
    return {"kind": type(job).__name__, **job.to_message()}


class Worker:
    """Holds one model.

    Args:
        source: what `load_model` is given here.
        dtype: of the weights.
        device: `cpu`, `cuda` or `mps`.
        threads: CPU threads.
        expected: the weight hash and the package versions of the process that sends the jobs.
    """

    def __init__(
        self, source: str, dtype: str, device: str, threads: int, expected: dict[str, Any]
    ) -> None:
        torch.set_num_threads(threads)
        self._source, self._dtype, self._device = source, dtype, device
        self._expected = expected
        self._model: Any = None
        self._job: tuple[str, Callable[[int], pd.DataFrame]] | None = None

    def load(self) -> dict[str, Any]:
        """Loads the model, once; returns which process this is, or what went wrong."""
        try:
            if self._model is None:
                self._require_same_versions()
                model = load_model(self._source, dtype=self._dtype, device=self._device)
                self._require_same_weights(model)
                self._model = model
        except Exception as error:  # whatever it is, it stops the run, with its own words
            return {**_failure(error), "loading": True}
        return {"process": os.getpid(), "node": socket.gethostname()}

    def make(self, name: str, message: dict[str, Any], index: int) -> dict[str, Any]:
        """Returns the table of one set of a job, or what went wrong.

        Args:
            name: of the job; what its sets share is done once.
            message: what `job_message` returned.
            index: of the set in the plan.
        """
        loaded = self.load()
        if "error" in loaded:
            return loaded
        try:
            if self._job is None or self._job[0] != name:
                self._job = None  # frees what the last one kept
                job = _KINDS[message["kind"]].from_message(message)
                self._job = name, job.begin(self._model)
            return {"table": packed(self._job[1](index))}
        except Exception as error:
            return _failure(error)

    def _require_same_versions(self) -> None:
        """Before the weights: another TransformerLens gives them other names, and so another hash."""
        here = package_versions()
        for package, version in self._expected["versions"].items():
            if here.get(package) != version:
                raise EngineError(
                    f"{package} is {here.get(package)} here and {version} in the process that started "
                    "the run. Install the same versions everywhere (constraints.txt)."
                )

    def _require_same_weights(self, model: Any) -> None:
        theirs, ours = str(self._expected["weight_hash"]), weight_hash(model)
        if ours != theirs:
            raise EngineError(
                f"the weights of {self._source} differ: their hash is {ours[:12]}… here and {theirs[:12]}… "
                "in the process that started the run. Give every machine the same files, and load the "
                "model again if it was changed."
            )


def _failure(error: Exception) -> dict[str, Any]:
    return {
        "error": "OutOfMemoryError" if is_out_of_memory(error) else type(error).__name__,
        "message": str(error),
        "node": socket.gethostname(),
        "trace": traceback.format_exc(),
    }
