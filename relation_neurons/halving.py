"""Halving: a batch that does not fit into memory is halved and run again, down to one prompt.

Outcomes do not depend on it: sums in another order differ by rounding, as between batch sizes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from relation_neurons.errors import OutOfMemoryError
from relation_neurons.lens import HookedModel

__all__ = ["as_they_fit", "is_out_of_memory"]

_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "could not create a memory",
)
"""What torch, Apple's MPS and the libraries below say of it in errors that have no type of their own."""


@runtime_checkable
class _Halvable(Protocol):
    @property
    def rows(self) -> Sized: ...

    def halves(self) -> tuple[Any, Any] | None: ...


Whole = TypeVar("Whole", bound=_Halvable)
Found = TypeVar("Found")


def is_out_of_memory(error: BaseException) -> bool:
    """Says whether an error is that of memory that ran out, on whatever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def as_they_fit(
    model: HookedModel,
    batches: list[Whole],
    run: Callable[[Whole], Found],
    relieve: Callable[[], bool] | None = None,
) -> Iterator[tuple[Whole, Found]]:
    """Runs batches in their order; one that does not fit is replaced by its halves in the list.

    So whoever runs the same list again starts with what fits.

    Args:
        model: what runs them; named in the error.
        batches: changed in place.
        run: what is done with each; called anew on the halves, so it changes nothing before it is done.
        relieve: frees what is only kept for speed, once, before the error; says whether there was any.

    Yields:
        Each batch that fitted, and what `run` made of it.

    Raises:
        OutOfMemoryError: one prompt does not fit; what would is said.
    """
    at = 0
    while at < len(batches):
        batch = batches[at]
        found, failure = _tried(run, batch)
        if failure is None:
            at += 1
            yield batch, found  # type: ignore[misc]  # there is a result where there is no failure
            continue
        halves = batch.halves()
        if halves is not None:
            _warn(len(batch.rows), max(len(half.rows) for half in halves))
            batches[at : at + 1] = halves
        elif relieve is None or not relieve():
            raise OutOfMemoryError(_what_would_fit(model, batch, failure))
        _release()


def _tried(run: Callable[[Whole], Found], batch: Whole) -> tuple[Found | None, str | None]:
    """Runs a batch; gives the error's text alone, as its traceback would keep the tensors alive."""
    try:
        return run(batch), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        return None, (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _release() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _warn(count: int, half: int) -> None:
    warnings.warn(
        f"A batch of {count} prompts does not fit into memory and is run in halves; with a batch_size of "
        f"{half} or less it would not have been tried.",
        RuntimeWarning,
        stacklevel=3,
    )


def _what_would_fit(model: HookedModel, batch: Any, failure: str) -> str:
    device = next(model.parameters()).device
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    tokens = getattr(batch, "tokens", None)
    longest = tokens.shape[1] if tokens is not None else 0
    free = ""
    if device.type == "cuda":
        free = f", of which {_gb(torch.cuda.mem_get_info(device)[0])} are free"
    lighter = "" if dtype != "float32" else f" dtype='bfloat16' ({_gb(weights // 2)} of weights),"
    return (
        f"One prompt of {longest} tokens does not fit into the memory of {device}{free}, beside "
        f"{_gb(weights)} of weights in {dtype} ({failure}). What would fit: shorter prompts (fewer shots, a "
        f"shorter template),{lighter} a device with more memory, or several (n_devices)."
    )


def _gb(size: int) -> str:
    """Writes bytes as decimal gigabytes.

    >>> _gb(1_530_000_000)
    '1.53 GB'
    """
    return f"{size / 1e9:.2f} GB"
