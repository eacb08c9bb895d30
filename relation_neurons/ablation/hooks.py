"""`ablated`, the context manager that sets neurons to a value, and its hooks, which check themselves."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from relation_neurons.ablation.plan import HookPointPlan, Neurons, Values, plan_ablation, rows_of
from relation_neurons.activations.pooling import first_positions
from relation_neurons.backends.base import HookedModel
from relation_neurons.backends.installed import BACKEND
from relation_neurons.errors import AblationError, HookError, UnknownOptionError, near_matches
from relation_neurons.inference.batches import Batch
from relation_neurons.inference.forward import attach
from relation_neurons.inference.prefix_trees import TreeBatch

__all__ = ["MODES", "POSITIONS", "Ablation", "ablated"]

MODES = ("zero", "mean", "scale")

POSITIONS = ("no_first", "all", "last")


class Ablation:
    """The hooks of one ablation; what `ablated` yields.

    `start(batch, answers)` tells it which positions are real and where answers begin; a plain call
    of the model needs none: the mask is read from the call.
    """

    def __init__(
        self,
        model: HookedModel,
        parts: dict[str, HookPointPlan],
        *,
        mode: str,
        positions: str,
        rows: int | None = None,
        outer: Ablation | None = None,
    ) -> None:
        self._model, self._parts, self._mode, self._positions = model, parts, mode, positions
        self._set_count, self._outer = rows, outer
        self._where: Bool[Tensor, "batch pos"] | None = None
        self._rows: Int[Tensor, " batch"] | None = None
        self._expected: dict[str, Tensor] = {}
        self._given: Batch | None = None
        self._answers: Int[Tensor, " batch"] | None = None
        self._in_place = False
        self.calls = 0
        self.fired: set[str] = set()

    def start(self, batch: Batch, answers: Int[Tensor, " batch"]) -> None:
        """Announces the next batch and the position of each row's last prompt token.

        With a set per row, set i then belongs to sequence i of the list that was batched.
        """
        self._given, self._answers = batch, answers

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps the model's forward pass, so that every way of running it announces its positions."""

        @functools.wraps(forward)
        def aware(*args: Any, **kwargs: Any) -> Any:
            with self._checked():
                self._decide(args[0] if args else kwargs["input"], kwargs)
                return forward(*args, **kwargs)

        vars(aware)["ablation"] = self  # for a context inside this one
        return aware

    @property
    def per_row(self) -> bool:
        """Whether rows have sets of their own."""
        return self._set_count is not None

    @contextlib.contextmanager
    def over(self, batch: TreeBatch) -> Iterator[None]:
        """Applies the ablation to one pass over prefix trees, which does not call the model's `forward`.

        Raises:
            AblationError: rows have sets of their own, and tokens are shared between rows here.
        """
        if self.per_row:
            raise AblationError(
                "With per_row each sequence has neurons of its own, and in prefix trees sequences share "
                "tokens. Make the batches inside the ablation, where they are padded rows."
            )
        self.calls += 1
        with self._checked():
            # Only hooks of this package look on here, and none of them keeps what it is shown.
            self._in_place = self._outer is None and not torch.is_grad_enabled()
            if self._positions == "all":
                self._where = batch.mask
            elif self._positions == "no_first":
                self._where = batch.mask & (batch.depth > 0)
            else:
                self._where = batch.answering
            yield

    def only_at(self, read: Int[Tensor, " read"]) -> None:
        """Narrows the rest of the pass to these positions of the flattened batch."""
        assert self._where is not None
        self._where = self._where.flatten()[read][None]

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Checks the values that leave each hook point during a pass, and forgets the pass after it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            for name in self._parts:  # registered now, so behind whatever else is hooked
                stack.callback(attach(self._model, name, self.check).remove)
            yield

    def _forget(self) -> None:
        self._where = self._rows = None
        self._in_place = False
        self._expected.clear()

    def _decide(self, inputs: Any, kwargs: dict[str, Any]) -> None:
        """Decides which positions of the coming pass are ablated, and each row's set."""
        self.calls += 1
        given = self._given if self._given is not None and inputs is self._given.tokens else None
        mask = kwargs.get("attention_mask")
        if given is not None:
            mask = given.mask
        if mask is None:
            mask = self._inferred_mask(inputs, kwargs)
        mask = mask.bool()
        width = (
            inputs.shape[min(inputs.ndim - 1, 1)] if isinstance(inputs, Tensor) else mask.shape[1]
        )
        if mask.shape[1] == width:
            mask = torch.cat([_mask_before(kwargs, mask), mask], dim=1)
        # Keys and values of earlier positions may be kept, so that only the last `width` ones are run.
        here = mask[:, mask.shape[1] - width :]
        self._rows = self._own_rows(given, here)
        if self._positions == "all":
            self._where = here
        elif self._positions == "no_first":
            self._where = here & ~first_positions(mask)[:, mask.shape[1] - width :]
        elif given is not None and self._answers is not None:
            at = torch.arange(width, device=mask.device)
            self._where = here & (at >= self._answers[:, None])
        else:
            self._where = torch.zeros_like(here)
            self._where[:, -1] = True

    def _own_rows(
        self, given: Batch | None, mask: Bool[Tensor, "batch pos"]
    ) -> Int[Tensor, " batch"] | None:
        """The set of each row of the coming pass; None where all share one."""
        if self._set_count is None:
            return None
        rows = torch.arange(len(mask)) if given is None else torch.as_tensor(given.rows)
        wrong = len(rows) != self._set_count if given is None else max(rows) >= self._set_count
        if wrong:
            there = f"a batch of {len(rows)} rows" if given is None else f"sequence {max(rows)}"
            raise AblationError(
                f"{self._set_count} sets of neurons were given with per_row, and now {there} is run; "
                "expected one set for each row (or, for announced batches, for each sequence)."
            )
        return rows.to(mask.device)

    def hook(self, value: Float[Tensor, "batch pos d_mlp"], name: str) -> Tensor:
        """Sets the values at one hook point."""
        self.fired.add(name)
        part = self._parts[name]
        found = value[:, :, part.index]
        target = self._of_rows(part.target)[:, None, :]
        new = found * target if self._mode == "scale" else target.expand_as(found)
        wanted = torch.where(self._ablated_at(part, found), new.to(found.dtype), found)
        result = value if self._in_place else value.clone()
        result[:, :, part.index] = self._expected[name] = wanted
        if self._outer is not None:
            self._outer.overrule(name, value, result)
        return result

    def overrule(self, name: str, before: Tensor, after: Tensor) -> None:
        """Notes what a context inside this one changed at the same hook point."""
        if name in self._expected:
            index = self._parts[name].index
            old, new = before[:, :, index], after[:, :, index]
            self._expected[name] = torch.where(old == new, self._expected[name], new)
        if self._outer is not None:
            self._outer.overrule(name, before, after)

    def check(self, value: Float[Tensor, "batch pos d_mlp"], name: str) -> None:
        """Runs last at the hook point and compares what leaves it with what was set."""
        part, expected = self._parts[name], self._expected[name]
        found = value[:, :, part.index]
        wrong = (found != expected) & self._ablated_at(part, found)
        if bool(wrong.any()) and bool((wrong & ~(found.isnan() & expected.isnan())).any()):
            raise AblationError(
                f"After the ablation of {len(part.index)} neurons, {name} still holds other values. "
                "Another hook on the same point changed them back."
            )

    def _ablated_at(
        self, part: HookPointPlan, found: Float[Tensor, "batch pos k"]
    ) -> Bool[Tensor, "batch pos k"]:
        where = self._where
        if where is None or where.shape != found.shape[:2]:
            raise HookError(
                "The ablation does not know the positions of this pass. Call the model itself, "
                "with tokens and, where rows are padded, attention_mask."
            )
        return where[..., None].to(found.device) & self._of_rows(part.member)[:, None, :]

    def _of_rows(self, of_sets: Tensor) -> Tensor:
        return of_sets if self._rows is None else of_sets[self._rows.to(of_sets.device)]

    def _inferred_mask(self, inputs: Any, kwargs: dict[str, Any]) -> Bool[Tensor, "batch pos"]:
        """The mask where a call has none: as the model makes it, or an error where it makes none."""
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            return torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
        tokenizer = self._model.tokenizer
        side, prepend_bos = kwargs.get("padding_side"), kwargs.get("prepend_bos")
        if isinstance(inputs, Tensor):
            tokens = inputs if inputs.ndim == 2 else inputs[None]
        else:
            told = {"padding_side": side, "prepend_bos": prepend_bos}
            how: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
            tokens = self._model.to_tokens(inputs, **how)
        mask = torch.ones(tokens.shape, dtype=torch.bool, device=tokens.device)
        pad, bos = (getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "bos"))
        if pad is None or not bool((tokens == pad).any()):
            return mask
        side = side if side in ("left", "right") else tokenizer.padding_side
        several = isinstance(inputs, list) and len(inputs) > 1
        own = several or BACKEND.name == "HookedTransformer"
        if side == "left" and own:
            if not isinstance(prepend_bos, bool):
                prepend_bos = getattr(self._model.cfg, "default_prepend_bos", True)
            real = tokens != pad
            first = real.cumsum(dim=1) == 0
            if prepend_bos and bos == pad:  # the last of what looks like padding is the BOS
                first &= first.cumsum(dim=1) < first.sum(dim=1, keepdim=True)
            return ~first
        padded = (tokens[:, :2] == pad).all(dim=1) if bos == pad else tokens[:, 0] == pad
        if len(tokens) > 1 or bool(padded.any()):
            raise AblationError(
                "These rows hold the padding token, no attention_mask says what is padding, and the model "
                "would attend to it. Pass attention_mask, or give each row without its padding."
            )
        return mask


def _mask_before(
    kwargs: dict[str, Any], mask: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "batch before"]:
    """Which of the positions whose keys and values are kept from earlier passes were real."""
    cache = kwargs.get("past_kv_cache")
    if cache is not None:  # a HookedTransformer's
        count = cache[0].past_keys.shape[1] if len(cache.entries) else 0
        if cache.previous_attention_mask.shape[1] == count:
            return cache.previous_attention_mask.bool().to(mask.device)
    else:
        cache = kwargs.get("past_key_values")  # Hugging Face's
        count = 0 if cache is None else int(cache.get_seq_length())
    return torch.ones((len(mask), count), dtype=torch.bool, device=mask.device)


@contextlib.contextmanager
def ablated(
    model: HookedModel,
    neurons: Neurons | None = None,
    *,
    per_row: Sequence[Neurons] | None = None,
    site: str = "post",
    mode: str = "zero",
    positions: str = "no_first",
    value: Values = None,
) -> Iterator[Ablation]:
    """Ablates neurons for as long as the context is open.

    Contexts nest. At one site the inner context acts on what the outer one leaves: where both hold
    a neuron, the inner's zero or mean stands and two factors multiply. Across sites the later one
    in the forward pass has the last word.

    Every way of running the model is ablated: a call, `run_with_cache`, and `generate`, with its cache of
    keys and values or without. `generate` then says what the model says without these neurons; only the
    first position of the text is spared, however many tokens follow.

    Args:
        model: what `load_model` returns.
        neurons: rows with layer and neuron, names such as `L16N302`, or (layer, neuron) pairs; the
            same for every row of a batch.
        per_row: instead of `neurons`, a set for each row of the batches that are run, in order;
            a row's set may be empty. It equals ablating each row's set on its own.
        site: `post`, `gate`, `up` or `out`.
        mode: `zero`; `mean` (each neuron set to its `value`); `scale` (multiplied by `value`).
        positions: `no_first` spares the first attended position, an attention sink; `all` is the
            paper's; `last` is the last prompt position and every answer position (in `generate`, with
            its cache: the last position of the text and every generated one).
        value: for `mean`, one per neuron; for `scale`, a factor, or one per neuron. With `per_row`,
            a number for all, or an item for each row, itself a number or one per neuron.

    Raises:
        AblationError: a neuron that does not exist, values that are not what was asked for (another
            hook changed them), or a batch with more or fewer rows than `per_row`.
        HookError: a hook that did not fire though the model ran.
    """
    for name, choice, choices in (("mode", mode, MODES), ("positions", positions, POSITIONS)):
        if choice not in choices:
            raise UnknownOptionError(f"No {name} {choice!r}. {near_matches(choice, choices)}")
    sets, values = rows_of(neurons, per_row, value)
    parts = plan_ablation(model, sets, site, mode, values)
    rows = None if per_row is None else len(sets)
    forward, wrapped_before = model.forward, "forward" in vars(model)
    outer = getattr(forward, "ablation", None)
    ablation = Ablation(model, parts, mode=mode, positions=positions, rows=rows, outer=outer)
    handles: list[Any] = []
    try:
        model.forward = ablation.around(forward)
        for point in parts:
            handles.append(attach(model, point, ablation.hook))
        yield ablation
        missed = [point for point in parts if point not in ablation.fired]
        if ablation.calls and missed:
            raise HookError(
                f"The model ran, but the hook {missed[0]} did not fire, so its neurons were not "
                "ablated. Run every layer that holds an ablated neuron."
            )
    finally:
        for handle in handles:
            handle.remove()
        if wrapped_before:
            model.forward = forward
        else:
            vars(model).pop("forward", None)
