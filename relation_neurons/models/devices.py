"""Chooses a device, and how many of them a model's weights are spread over."""

from __future__ import annotations

import torch

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import OutOfMemoryError, UnknownOptionError
from relation_neurons.formatting import gigabytes
from relation_neurons.inference.out_of_memory import is_out_of_memory

__all__ = ["choose_device", "count_devices", "place_model", "weight_bytes"]

_HEADROOM = 1.2
"""Room for a pass beside the weights: what is left of it decides how large a batch can be."""


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Returns the device that was asked for, else CUDA, else Apple's MPS, else the CPU."""
    if device is not None:
        try:
            chosen = torch.device(device)
        except RuntimeError as error:
            raise UnknownOptionError(f"No device {device!r}: {error}") from error
        there = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        if not there.get(chosen.type, False):
            here = ", ".join(kind for kind, found in there.items() if found)
            raise UnknownOptionError(
                f"There is no device {chosen} on this machine; there is {here}."
            )
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def weight_bytes(model: HookedModel) -> int:
    """What the weights take."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def count_devices(needed: int, device: torch.device, n_devices: int | None, layers: int) -> int:
    """Decides on how many devices of a kind a model goes: the fewest that hold it.

    Args:
        needed: bytes of the weights.
        device: the first of them.
        n_devices: a fixed choice; None to decide here.
        layers: whole blocks are placed, so there are no more devices than layers.

    Raises:
        UnknownOptionError: more devices than there are, or several that are not CUDA's.
        OutOfMemoryError: all of them together do not hold it; the message says what it needs.
    """
    several = device.type == "cuda"
    there = torch.cuda.device_count() - (device.index or 0) if several else 1
    if n_devices is not None:
        if not 1 <= n_devices <= min(there, layers):
            raise UnknownOptionError(
                f"n_devices is {n_devices}; from {device} on there are {there} of that kind here, and the "
                f"model has {layers} layers to spread."
            )
        return n_devices
    if not several:
        return 1
    first = device.index or 0
    free = [torch.cuda.mem_get_info(i)[0] for i in range(first, first + there)]
    for count in range(1, min(there, layers) + 1):
        share = -(-layers // count) / layers * needed * _HEADROOM
        if min(free[:count]) >= share:
            return count
    found = ", ".join(gigabytes(size, 1) for size in free)
    raise OutOfMemoryError(
        f"The weights take {gigabytes(needed, 1)} and {gigabytes(needed * _HEADROOM, 1)} are needed to run "
        f"them; free here: {found} on {there} device{'s' if there > 1 else ''}. Give a smaller dtype, a "
        "smaller model, more devices, or device='cpu'."
    )


def place_model(
    model: HookedModel, device: torch.device, n_devices: int | None = None
) -> HookedModel:
    """Moves a model to its device, or block by block to several.

    Raises:
        UnknownOptionError: more devices than there are.
        OutOfMemoryError: they do not hold it; the message says what it needs.
    """
    needed = weight_bytes(model)
    count = count_devices(needed, device, n_devices, model.cfg.n_layers)
    model.cfg.device = str(device)
    try:
        if count == 1:
            placed: HookedModel = BACKEND.put(model, device)
            placed.cfg.device = str(device)  # putting it there leaves out which of several it is
            return placed
        spread: HookedModel = BACKEND.spread(model, count)
        return spread
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        raise OutOfMemoryError(
            f"The weights take {gigabytes(needed, 1)}, more than {device} has left. Give a smaller dtype, a "
            "smaller model, another device, or several (n_devices)."
        ) from error
