"""Margins, log-probabilities and KL divergence, one part of the vocabulary at a time.

The Kullback-Leibler divergence of a changed model q from the intact one p, at one position, from their
logits z and their log-normalisers Z = log sum_v exp z_v:

    KL = sum_v p_v (log p_v - log q_v) = (mean of p's z) - (mean of q's z) + Z_q - Z_p

both means under p. So a part of the vocabulary is summed while it is at hand and not kept, and a changed
model that is the intact one is at exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import ActivationError, AnswerError
from relation_neurons.inference.forward import unembed_parts

__all__ = ["IntactPredictions", "not_finite", "require_logits", "score_reads"]

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
    """Returns the error for logits that are not numbers."""
    return ActivationError(
        "The model's logits hold NaN or Inf. float16 overflows in some models: load it with "
        "dtype='bfloat16' or 'float32'."
    )


def require_logits(model: HookedModel, tokens: Int[Tensor, " read"]) -> None:
    """Refuses tokens that the model has no logit for; the last token of a text is never fed.

    Raises:
        AnswerError: a token outside the model's vocabulary.
    """
    last = int(tokens.max())
    if last >= model.cfg.d_vocab:
        raise AnswerError(
            f"A text ends in the token {last}, and the model's vocabulary at {model.cfg.d_vocab - 1}. "
            "The tokenizer is another model's, or tokens were added to it; give the model's own."
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
        high, column = logits.max(dim=1)
        logits.scatter_(1, column[:, None], -torch.inf)
        after = torch.maximum(self.second, logits.amax(dim=1))
        top = torch.maximum(self.top, high)
        # A part may be -inf throughout (tokens that are never predicted), and -inf less -inf is not a number.
        lowest = torch.finfo(top.dtype).min
        left, right = ((one - top.clamp(min=lowest)).exp() for one in (self.top, high))
        more = logits.sub_(high.clamp(min=lowest)[:, None]).exp_().sum(dim=1)
        return _Best(
            top,
            torch.maximum(torch.minimum(self.top, high), after),
            torch.where(high > self.top, column + start, self.token),
            self.others * left + more * right + torch.minimum(left, right),
        )


@dataclass(frozen=True)
class IntactPredictions:
    """What the intact model expects wherever a token is predicted."""

    residual: Float[Tensor, "read d_model"]
    """The final residual stream."""
    targets: Int[Tensor, " read"]
    """The tokens that come."""
    log_norms: Float[Tensor, " read"]
    target_logits: Float[Tensor, " read"]
    mean_logits: Float[Tensor, " read"]
    """The mean of the logits under the probabilities that they give (float64)."""
    probabilities: Float[Tensor, "read d_vocab"] | None
    """None where they are too many to keep; then they are computed again, a part at a time."""

    @classmethod
    def of(
        cls,
        model: HookedModel,
        residual: Float[Tensor, "read d_model"],
        targets: Int[Tensor, " read"],
        *,
        keep: bool,
    ) -> IntactPredictions:
        """Records what the intact model expects.

        Args:
            model: the intact model.
            residual: its final residual stream.
            targets: the tokens that come.
            keep: whether its probabilities are kept.

        Raises:
            AnswerError: a token that the model has no logit for.
        """
        require_logits(model, targets)
        with torch.inference_mode():
            empty = torch.empty(len(targets), device=residual.device)
            kept = empty.new_empty(len(targets), model.cfg.d_vocab) if keep else None
            made = cls(residual, targets, empty, empty.clone(), empty.double(), None)
            for place, part in made._parts():
                part.log_norms[:], part.target_logits[:], _ = part._scan(model, residual[place])
                if kept is not None:
                    for vocabulary, some in part._probabilities(model):
                        kept[place, vocabulary] = some
                part = replace(part, probabilities=None if kept is None else kept[place])
                part.mean_logits[:] = part._scan(model, residual[place], means=True)[2]
        return replace(made, probabilities=kept)

    def at(self, here: slice) -> IntactPredictions:
        """A view of some positions."""
        kept = self.probabilities
        return IntactPredictions(
            self.residual[here],
            self.targets[here],
            self.log_norms[here],
            self.target_logits[here],
            self.mean_logits[here],
            None if kept is None else kept[here],
        )

    def compare(
        self, model: HookedModel, after: Float[Tensor, "read d_model"]
    ) -> Float[Tensor, " 3"]:
        """Sums over positions: log-loss of the intact model, of the changed one, and KL between them.

        Args:
            model: with whatever changes it.
            after: its final residual stream at the same positions.

        Raises:
            ActivationError: logits that hold NaN or Inf.
        """
        total = torch.zeros(3, dtype=torch.float64)
        for place, part in self._parts():
            with torch.inference_mode():
                log_norms, logits, means = part._scan(model, after[place], means=True)
                kl = (part.mean_logits - means + log_norms - part.log_norms).clamp(
                    min=0
                )  # rounding
                losses = part.log_norms - part.target_logits, log_norms - logits
                total += torch.stack([one.double().sum() for one in (*losses, kl)]).cpu()
        if not all(math.isfinite(part) for part in total.tolist()):
            raise not_finite()
        return total

    def _parts(self) -> Iterator[tuple[slice, IntactPredictions]]:
        """As many positions as are read at once."""
        for start in range(0, len(self.targets), _READ_AT_ONCE):
            place = slice(start, start + _READ_AT_ONCE)
            yield place, self.at(place)

    def _scan(
        self, model: HookedModel, residual: Float[Tensor, "read d_model"], *, means: bool = False
    ) -> tuple[Float[Tensor, " read"], Float[Tensor, " read"], Float[Tensor, " read"]]:
        """Log-normalisers, the targets' logits, and the mean logits under what is expected."""
        found, mean = torch.zeros_like(self.target_logits), torch.zeros_like(self.mean_logits)
        norms = []
        again = self._probabilities(model) if means and self.probabilities is None else None
        for vocabulary, logits in unembed_parts(model, residual):
            norms.append(logits.logsumexp(dim=1))
            start = vocabulary.start
            rows = ((self.targets >= start) & (self.targets < vocabulary.stop)).nonzero()[:, 0]
            found[rows] = logits[rows, self.targets[rows] - start]
            if again is not None:
                mean += torch.linalg.vecdot(next(again)[1], logits)
            elif means and self.probabilities is not None:
                mean += torch.linalg.vecdot(self.probabilities[:, vocabulary], logits)
        return torch.stack(norms, dim=1).logsumexp(dim=1), found, mean

    def _probabilities(
        self, model: HookedModel
    ) -> Iterator[tuple[slice, Float[Tensor, "read some"]]]:
        """What the intact model expects of each part of the vocabulary."""
        for vocabulary, logits in unembed_parts(model, self.residual):
            yield vocabulary, logits.sub_(self.log_norms[:, None]).exp_()
