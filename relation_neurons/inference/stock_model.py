"""Whether a model is still what TransformerLens made it: every module in its place, every method its own.

The lean pass over prefix trees rebuilds a block from its weights, so it says what the model does only
where nobody has changed how a module works. A module that was replaced, wrapped or subclassed, a method
that was put over its own, on the object or on its class, a parametrised weight: all of them are found
here. A HookedTransformer is compared with a new one of one block and the same config, without memory
for its weights; a TransformerBridge, which is put together around another library's modules, is looked
through for anything that neither of the two libraries defines.

Nothing is remembered per model: a module may be replaced at any time.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND

__all__ = ["changed_module", "current_hook_point"]

_LIBRARIES = ("transformer_lens", "transformers", "torch")
"""Where the modules of an unchanged model are defined."""
_ROOT_METHODS = frozenset(
    [
        "__call__",
        "_call_impl",
        "_wrapped_call_impl",
        "get_pos_offset",
        "get_residual",
        "input_to_embed",
    ]
)
"""What a forward pass of the whole model calls on it; `forward` itself is looked at with the ablations."""
_SKIPPED = frozenset(("n_layers", "device", "seed", "init_weights", "model_name", "tokenizer_name"))
"""Parts of a config that do not decide which modules there are in a block."""


@dataclass(frozen=True)
class _Place:
    """What a module of a new model is, and what stands in it."""

    kind: Any
    methods: frozenset[str]
    """Names that an object of this class must not put something of its own over."""
    children: Mapping[str, _Place]


def changed_module(model: HookedModel) -> str:
    """Names the first module that is not the library's own, or returns an empty string.

    Hooks are not looked for here, but for those of PyTorch that hold for all modules, and neither is
    the `forward` of the whole model where it is an attribute of the object, as an ablation's is.
    """
    root: Any = model
    kind: Any = BACKEND.kind
    if torch_modules._has_any_global_hook():
        return "all modules, by a global hook"
    if type(root) is not kind or not _ROOT_METHODS.isdisjoint(vars(root)):
        return type(root).__name__
    if changed := _patched_class():
        return changed
    if BACKEND.name != "HookedTransformer":
        return _foreign_module(root)
    if len(root.blocks) != root.cfg.n_layers:
        return "blocks"
    if root.cfg.attention_dir != "causal":
        return "cfg.attention_dir"
    return _difference(root, _new_model(_Config(root.cfg)), root.cfg)


def current_hook_point(model: HookedModel, name: str) -> nn.Module:
    """The hook point that stands at its place now, where a module was replaced by one with its own.

    Where there is none, as behind a wrapper, it is the one that the model was set up with.
    """
    point = BACKEND.hook_points(model)[name]
    module: Any = model
    for part in name.split("."):
        module = module._modules.get(part)
        if module is None:
            return point
    return module if type(module) is type(point) else point


class _Config:
    """A config that is the same key wherever it makes the same modules."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self._text = repr(sorted((k, v) for k, v in vars(cfg).items() if k not in _SKIPPED))

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Config) and self._text == other._text


@functools.lru_cache(maxsize=32)
def _new_model(config: _Config) -> _Place:
    """The places of a new model of one block; a copy of the config, so that no seed is set again."""
    cfg = copy.copy(config.cfg)
    cfg.n_layers, cfg.init_weights = 1, False
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        torch.device("meta"),
    ):
        warnings.simplefilter("ignore")
        return _place(BACKEND.kind(cfg, tokenizer=None, move_to_device=False))


def _place(module: nn.Module) -> _Place:
    children = {name: _place(child) for name, child in module._modules.items() if child is not None}
    kind: Any = type(module)
    return _Place(kind, _methods(kind), children)


@functools.lru_cache(maxsize=256)
def _methods(kind: type) -> frozenset[str]:
    return frozenset(
        name
        for base in kind.__mro__
        if base is not object
        for name, value in vars(base).items()
        if isinstance(value, types.FunctionType | property | staticmethod | classmethod)
    )


def _difference(root: Any, new: _Place, cfg: Any) -> str:
    """The first module that is not what it is in a new model."""
    children = root._modules
    if children.keys() != new.children.keys():
        return type(root).__name__
    for name, child in children.items():
        place = new.children[name]
        if name != "blocks":
            if changed := _differs(child, place, cfg, name):
                return changed
        elif type(child) is not place.kind or not place.methods.isdisjoint(vars(child)):
            return name
        else:
            for layer, block in child._modules.items():
                if changed := _differs(block, place.children["0"], cfg, f"blocks.{layer}"):
                    return changed
    return ""


def _differs(module: Any, place: _Place, cfg: Any, name: str) -> str:
    own = vars(module)
    if type(module) is not place.kind or not place.methods.isdisjoint(own):
        return name
    if own.get("cfg", cfg) is not cfg and own["cfg"] != cfg:
        return name
    if own.get("_attention_dir_override") is not None:  # a stack that looks both ways
        return name
    children = module._modules
    if len(children) != len(place.children):
        return name
    for key, child in children.items():
        if key not in place.children:
            return name
        if changed := _differs(child, place.children[key], cfg, f"{name}.{key}"):
            return changed
    return ""


def _foreign_module(root: Any) -> str:
    """The first module of a class, or with a method on the object, that no library defines."""
    for name, module in root.named_modules():
        kind: Any = type(module)
        if not _from_library(kind):
            return name
        for key in _methods(kind) & vars(module).keys():
            if module is root and key == "forward":
                continue
            value = vars(module)[key]
            if callable(value) and not _from_library(getattr(value, "__func__", value)):
                return name
    return ""


def _from_library(what: Any) -> bool:
    return str(getattr(what, "__module__", "")).split(".")[0] in _LIBRARIES


def _subclasses(kind: Any) -> Iterator[type]:
    yield kind
    for sub in kind.__subclasses__():
        yield from _subclasses(sub)


def _functions(kind: type) -> dict[str, types.FunctionType]:
    return {name: f for name, f in vars(kind).items() if isinstance(f, types.FunctionType)}


def _as_defined() -> dict[type, tuple[int, dict[str, types.FunctionType]]]:
    """The methods of every module of TransformerLens, and of PyTorch's base class."""
    own = {kind for kind in _subclasses(nn.Module) if kind.__module__.startswith(_LIBRARIES[0])}
    return {kind: (len(vars(kind)), _functions(kind)) for kind in (*own, nn.Module)}


_AS_DEFINED = _as_defined()


def _patched_class() -> str:
    """The first class of TransformerLens with other methods than when this module was loaded."""
    for kind, (count, methods) in _AS_DEFINED.items():
        now = vars(kind)
        if any(now.get(name) is not function for name, function in methods.items()):
            return kind.__name__
        if kind is not nn.Module and len(now) != count and _functions(kind) != methods:
            return kind.__name__  # (Hugging Face hangs a function of its own on the base class)
    return ""
