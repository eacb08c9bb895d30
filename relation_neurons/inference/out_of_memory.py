"""Out-of-memory errors: a batch that does not fit is halved and run again, down to one prompt.

Outcomes do not depend on it: sums in another order differ by rounding, as between batch sizes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import OutOfMemoryError
from relation_neurons.formatting import gigabytes

__all__ = ["explain_out_of_memory", "is_out_of_memory", "run_halving"]

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a memory",
)
"""What torch, Apple's MPS and their libraries write in errors that have no type of their own."""


@runtime_checkable
class _Halvable(Protocol):
    @property
    def rows(self) -> Sized: ...

    @property
    def tokens(self) -> Tensor: ...

    @property
    def half_batch_size(self) -> int | None:
        """With which batches are no larger than its halves; None where none makes them smaller."""

    def halves(self) -> tuple[Any, Any] | None: ...


Whole = TypeVar("Whole", bound=_Halvable)
Found = TypeVar("Found")


@dataclass(frozen=True)
class _Failure:
    """A batch that did not fit: the error's text alone, as its traceback would keep the tensors alive."""

    message: str


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


@contextlib.contextmanager
def explain_out_of_memory(what: Any) -> Iterator[None]:
    """Turns an out-of-memory error during loading into OutOfMemoryError, whatever it was wrapped in.

    Args:
        what: what is loaded: a name, a path, or a model, which is named by its class.

    Raises:
        OutOfMemoryError: memory ran out.
    """
    try:
        yield
    except Exception as error:  # torch, safetensors and Hugging Face each raise their own
        first = next((one for one in _causes(error) if is_out_of_memory(one)), None)
        if first is None or isinstance(error, OutOfMemoryError):
            raise
        name = type(what).__name__ if isinstance(what, torch.nn.Module) else what
        raise OutOfMemoryError(
            f"{name} does not fit into memory while it is loaded ({_first_line(first)}). Give a smaller "
            "dtype, a smaller model, another device, or several (n_devices)."
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def run_halving(
    model: HookedModel,
    batches: list[Whole],
    run: Callable[[Whole], Found],
    relieve: Callable[[], bool] | None = None,
) -> Iterator[tuple[Whole, Found]]:
    """Runs batches in their order; one that does not fit is replaced by its halves in the list.

    So the next run over the same list starts with what fits.

    Args:
        model: what runs them; named in the error.
        batches: changed in place.
        run: what is done with each; called again on the halves, so it must change nothing before it ends.
        relieve: frees what is kept only for speed, before the error; returns whether there was any.

    Yields:
        Each batch that fitted, and what `run` made of it.

    Raises:
        OutOfMemoryError: one prompt does not fit; the message says what would.
    """
    at = 0
    while at < len(batches):
        batch = batches[at]
        found = _tried(run, batch)
        if not isinstance(found, _Failure):
            at += 1
            yield batch, found
            continue
        halves = batch.halves()
        if halves is not None:
            _warn(batch)
            batches[at : at + 1] = halves
        elif relieve is None or not relieve():
            raise OutOfMemoryError(_what_would_fit(model, batch, found.message))
        _release()


def _tried(run: Callable[[Whole], Found], batch: Whole) -> Found | _Failure:
    """Runs a batch."""
    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        return _Failure(_first_line(error))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _warn(batch: _Halvable) -> None:
    size = batch.half_batch_size
    hint = (
        "no batch_size makes it smaller, as it is one row of a prefix tree"
        if size is None
        else f"with a batch_size of {size} or less it would not have been tried"
    )
    warnings.warn(
        f"A batch of {len(batch.rows)} sequences does not fit into memory and is run in halves; {hint}.",
        RuntimeWarning,
        stacklevel=3,
    )


def _what_would_fit(model: HookedModel, batch: _Halvable, failure: str) -> str:
    device = next(model.parameters()).device
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    longest = batch.tokens.shape[1]
    free = ""
    if device.type == "cuda":
        free = f", of which {gigabytes(torch.cuda.mem_get_info(device)[0])} are free"
    lighter = (
        "" if dtype != "float32" else f" dtype='bfloat16' ({gigabytes(weights // 2)} of weights),"
    )
    return (
        f"One prompt of {longest} tokens does not fit into the memory of {device}{free}, beside "
        f"{gigabytes(weights)} of weights in {dtype} ({failure}). What would fit: shorter prompts "
        f"(fewer shots, a shorter template),{lighter} a device with more memory, or several (n_devices)."
    )
