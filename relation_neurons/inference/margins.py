"""Margins: answer tokens read off the final residual stream, a part of the vocabulary at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import ActivationError, AnswerError
from relation_neurons.inference.forward import unembed_parts

__all__ = ["not_finite", "require_logits", "score_reads"]

_READ_AT_ONCE = 256


def score_reads(
    model: HookedModel,
    residual: Float[Tensor, "position d_model"],
    at: Int[Tensor, " read"],
    tokens: Int[Tensor, " read"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margin, log-probability and argmax of tokens read at single positions.

    Args:
        model: whose logits they are.
        residual: its final residual stream.
        at: the position of each read.
        tokens: what is read there.

    Returns:
        For each read the margin (logit of the token - best other logit), the log-probability of the
        token (nats), both float64, and the token with the highest logit, the first of equals.

    Raises:
        ActivationError: logits that hold NaN or Inf.
        AnswerError: a token that the model has no logit for.
    """
    require_logits(model, tokens)
    owns = torch.empty(len(at), device=residual.device)
    tops, seconds, norms = (torch.empty(len(residual), device=residual.device) for _ in range(3))
    bests = torch.empty(len(residual), dtype=torch.int64, device=residual.device)
    for start in range(0, len(residual), _READ_AT_ONCE):
        here = slice(start, start + _READ_AT_ONCE)
        reads = ((at >= start) & (at < start + _READ_AT_ONCE)).nonzero()[:, 0]
        found = _Best.of_nothing(residual[here])
        for vocabulary, logits in unembed_parts(model, residual[here]):
            asked = tokens[reads] - vocabulary.start
            inside = ((asked >= 0) & (asked < logits.shape[1])).nonzero()[:, 0]
            owns[reads[inside]] = logits[at[reads[inside]] - start, asked[inside]]
            found = found.beside(logits, vocabulary.start)
        tops[here], seconds[here], bests[here] = found.top, found.second, found.token
        norms[here] = found.top + found.others.log1p()
    if not (torch.isfinite(owns).all() and torch.isfinite(norms).all()):
        raise not_finite()
    other = torch.where(bests[at] == tokens, seconds[at], tops[at])
    margins, logprobs = ((owns - part).cpu().double().numpy() for part in (other, norms[at]))
    return margins, logprobs, bests[at].cpu().numpy()


def not_finite() -> ActivationError:
    """The error where logits are no numbers."""
    return ActivationError(
        "The model's logits hold NaN or Inf. float16 overflows in some models: load it with "
        "dtype='bfloat16' or 'float32'."
    )


def require_logits(model: HookedModel, tokens: Int[Tensor, " read"]) -> None:
    """Makes sure that the model has a logit for each token; the last one of a text is never fed.

    Raises:
        AnswerError: it does not.
    """
    last = int(tokens.max())
    if last >= model.cfg.d_vocab:
        raise AnswerError(
            f"A text ends in the token {last}, and the model's vocabulary at {model.cfg.d_vocab - 1}. "
            "The tokenizer is another model's, or tokens were added to it."
        )


@dataclass(frozen=True)
class _Best:
    """The two highest logits of each position among those seen so far."""

    top: Float[Tensor, " position"]
    second: Float[Tensor, " position"]
    token: Int[Tensor, " position"]
    others: Float[Tensor, " position"]
    """Sum of exp(logit - top) over all but the top: small where the model is sure, so kept apart from
    the 1 of the top itself."""

    @classmethod
    def of_nothing(cls, residual: Float[Tensor, "position d_model"]) -> _Best:
        low = torch.full((len(residual),), -torch.inf, device=residual.device)
        none = torch.zeros(len(residual), dtype=torch.int64, device=residual.device)
        return cls(low, low, none, torch.zeros_like(low))

    def beside(self, logits: Float[Tensor, "position some"], start: int) -> _Best:
        """Takes in the part of the vocabulary that begins at `start`, and uses its logits up."""
        high, place = logits.max(dim=1)
        logits.scatter_(1, place[:, None], -torch.inf)
        after = torch.maximum(self.second, logits.amax(dim=1))
        top = torch.maximum(self.top, high)
        # A part may be -inf throughout (tokens that are never said), and -inf less -inf is no number.
        lowest = torch.finfo(top.dtype).min
        left, right = ((one - top.clamp(min=lowest)).exp() for one in (self.top, high))
        more = logits.sub_(high.clamp(min=lowest)[:, None]).exp_().sum(dim=1)
        return _Best(
            top,
            torch.maximum(torch.minimum(self.top, high), after),
            torch.where(high > self.top, place + start, self.token),
            self.others * left + more * right + torch.minimum(left, right),
        )
