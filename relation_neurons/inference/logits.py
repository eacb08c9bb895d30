"""Expectation: what the intact model expects next, and how far a changed model is from it.

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

import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.inference.forward import unembed_parts
from relation_neurons.inference.margins import not_finite, require_logits

__all__ = ["Expectation"]

_READ_AT_ONCE = 256


@dataclass(frozen=True)
class Expectation:
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
    """None where they are too many to keep; then they are made anew, a part at a time."""

    @classmethod
    def of(
        cls,
        model: HookedModel,
        residual: Float[Tensor, "read d_model"],
        targets: Int[Tensor, " read"],
        *,
        keep: bool,
    ) -> Expectation:
        """Reads what the intact model expects; `keep` says whether its probabilities are kept.

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

    def at(self, here: slice) -> Expectation:
        """A view of some positions."""
        kept = self.probabilities
        return Expectation(
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

    def _parts(self) -> Iterator[tuple[slice, Expectation]]:
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
        anew = self._probabilities(model) if means and self.probabilities is None else None
        for vocabulary, logits in unembed_parts(model, residual):
            norms.append(logits.logsumexp(dim=1))
            start = vocabulary.start
            rows = ((self.targets >= start) & (self.targets < vocabulary.stop)).nonzero()[:, 0]
            found[rows] = logits[rows, self.targets[rows] - start]
            if anew is not None:
                mean += torch.linalg.vecdot(next(anew)[1], logits)
            elif means and self.probabilities is not None:
                mean += torch.linalg.vecdot(self.probabilities[:, vocabulary], logits)
        return torch.stack(norms, dim=1).logsumexp(dim=1), found, mean

    def _probabilities(
        self, model: HookedModel
    ) -> Iterator[tuple[slice, Float[Tensor, "read some"]]]:
        """What the intact model expects of each part of the vocabulary."""
        for vocabulary, logits in unembed_parts(model, self.residual):
            yield vocabulary, logits.sub_(self.log_norms[:, None]).exp_()
