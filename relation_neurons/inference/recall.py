"""Which facts the model knows, from one teacher-forced pass over prompt and answer.

Greedy decoding produces an answer exactly when, in one pass over prompt + answer, every answer
token is the argmax at its position. So nothing is decoded, and the margin says by how much:

    margin = min over answer positions of (logit of the answer's token - best other logit)

An answer is correct when its margin is above 0 (method 4). Of several accepted answers the
best margin counts, and its log-probability is kept. Answers that share a first word have the same
margin where that word is the worst position, up to rounding, which depends on the batch; so it never
decides between them (see `_best_answer`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from relation_neurons.backends.base import HookedModel
from relation_neurons.inference.batches import Batch
from relation_neurons.inference.forward import final_residual, model_batches
from relation_neurons.inference.logits import score_reads
from relation_neurons.inference.out_of_memory import run_halving
from relation_neurons.inference.prefix_trees import TreeBatch
from relation_neurons.inference.residual_cache import IntactStreams, run_from
from relation_neurons.progress import progress_bar
from relation_neurons.relations.prompts import Prompts
from relation_neurons.storage.chunks import Chunks, chunk_key

__all__ = ["BATCH_SIZE", "Outcomes", "TeacherForcing", "measure_recall", "plan_passes"]

BATCH_SIZE = 64
_Read = tuple[int, float, float, int, tuple[int, ...], int]
"""An answer read from a pass: prompt row, margin, log-probability, number of answer tokens, greedy tokens,
and the number of answer tokens up to the worst position."""
_CHUNK_COLUMNS = "row margin logprob length greedy worst"
"""What a kept part of a recall holds; one with other columns, of an earlier version, is made again."""


class _Candidate(NamedTuple):
    """An accepted answer of a prompt, as it was read."""

    place: tuple[int, int]
    """Where the plan has it, whatever batch it came in."""
    until_worst: tuple[int, ...]
    """Its tokens up to the one with the lowest margin."""
    margin: float
    logprob: float
    length: int


@dataclass(frozen=True)
class Outcomes:
    """What the model answers, a row per prompt."""

    margin: Float[np.ndarray, " prompt"]
    logprob: Float[np.ndarray, " prompt"]
    """Of the answer whose margin is best, summed over its tokens (nats); see `_best_answer` for ties."""
    answer_length: Int[np.ndarray, " prompt"]
    predicted: tuple[str, ...]
    """Greedy continuation, as far as the pass decides it: up to the first wrong token."""

    @property
    def correct(self) -> np.ndarray:
        """Whether greedy decoding produces an accepted answer."""
        return self.margin > 0


@dataclass(frozen=True)
class TeacherForcing:
    """A plan of passes: each distinct sequence once, and the answers that are read from it."""

    sequences: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[tuple[int, int, tuple[int, ...]], ...], ...]
    """For each sequence: (prompt row, tokens of that prompt, answer tokens)."""
    prompts: int
    pad_id: int

    def batches(self, model: HookedModel, batch_size: int) -> list[Batch | TreeBatch]:
        """The plan's batches, the same every time: prefix trees where the model takes them."""
        starts = [reads[0][1] - 1 for reads in self.reads]
        return model_batches(
            model, self.sequences, starts, batch_size=batch_size, pad_id=self.pad_id
        )


def plan_passes(prompts: Prompts) -> TeacherForcing:
    """Plans the passes for every accepted answer of every prompt.

    The last answer token is read, never fed. A sequence that begins another one of the same prompt is
    not run on its own: in a causal model its positions are the same there. (Not so between prompts of
    different length: their answers begin at different positions, which `last` ablates.)
    """
    wanted: dict[tuple[tuple[int, ...], int], list[tuple[int, int, tuple[int, ...]]]] = {}
    for row, (tokens, answers) in enumerate(zip(prompts.tokens, prompts.answers, strict=True)):
        for answer in answers:
            wanted.setdefault((tokens + answer[:-1], len(tokens)), []).append(
                (row, len(tokens), answer)
            )
    kept: list[tuple[tuple[int, ...], int]] = []
    for key in sorted(wanted, reverse=True):
        longer = kept[-1] if kept else ((), 0)
        if longer[1] == key[1] and longer[0][: len(key[0])] == key[0]:
            wanted[longer].extend(wanted.pop(key))
        else:
            kept.append(key)
    sequences = tuple(sequence for sequence, _ in kept)
    reads = tuple(tuple(wanted[key]) for key in kept)
    return TeacherForcing(sequences, reads, len(prompts), prompts.pad_id)


def measure_recall(
    model: HookedModel,
    prompts: Prompts,
    *,
    batch_size: int = BATCH_SIZE,
    chunks: Chunks | None = None,
) -> pd.DataFrame:
    """Asks the intact model every prompt that has an answer.

    Args:
        model: what `load_model` returns.
        prompts: those to ask.
        batch_size: prompts a pass.
        chunks: where the answers of each batch are saved as soon as they are there; saved ones are read.

    Returns:
        A row per such prompt: prompt_id, known, margin (logits), logprob and logprob_per_token
        (nats), predicted; and relation, language, subject and side for convenience.

    Raises:
        ContextLengthError: a prompt longer than the model's context.
        ActivationError: NaN in the logits.
        OutOfMemoryError: one prompt alone does not fit.
    """
    asked = prompts.take(prompts.frame["kind"] == "fact")
    with progress_bar(len(asked), "recall") as bar:
        plan = plan_passes(asked)
        out = answer_prompts(model, plan, batch_size=batch_size, bar=bar, chunks=chunks)
    frame = asked.frame[["prompt_id", "relation", "language", "subject", "side"]].copy()
    frame.insert(1, "known", out.correct)
    frame.insert(2, "margin", out.margin)
    frame.insert(3, "logprob", out.logprob)
    frame.insert(4, "logprob_per_token", out.logprob / np.maximum(out.answer_length, 1))
    frame.insert(5, "predicted", list(out.predicted))
    return frame


def answer_prompts(
    model: HookedModel,
    plan: TeacherForcing,
    *,
    batch_size: int = BATCH_SIZE,
    batches: list[Batch | TreeBatch] | None = None,
    streams: IntactStreams | None = None,
    first_layer: int = 0,
    bar: Any = None,
    before_batch: Any = None,
    chunks: Chunks | None = None,
) -> Outcomes:
    """Runs a plan and returns the outcome of each prompt; hooks that are set apply.

    Args:
        model: what `load_model` returns.
        plan: what `plan_passes` returns.
        batch_size: prompts a pass; prefix trees hold `TOKENS_PER_PROMPT` times as many tokens.
        batches: made ahead for a sweep that runs the same plan again and again; those that do not fit
            into memory are replaced by their halves.
        streams: stores the intact model's stream in the first pass; later passes start from it.
        first_layer: the first one that an ablation changes.
        bar: moved on by the sequences of each batch.
        before_batch: called with (batch, first answer position per row) ahead of each pass over
            padded rows; prefix trees hold where answers begin.
        chunks: where the answers of each batch are saved; for the intact model only, as their names do
            not tell what is ablated.
    """
    margin = np.full(plan.prompts, -np.inf)
    logprob = np.full(plan.prompts, -np.inf)
    length = np.zeros(plan.prompts, dtype=np.int64)
    predicted: list[tuple[int, ...]] = [()] * plan.prompts
    candidates: list[list[_Candidate]] = [[] for _ in range(plan.prompts)]
    batches = plan.batches(model, batch_size) if batches is None else batches

    def ask(batch: Batch | TreeBatch) -> list[_Read]:
        asked = _asked(plan, batch)
        with torch.inference_mode():
            if isinstance(batch, TreeBatch):
                residual = run_from(model, batch, streams, first_layer, asked.positions)
            else:
                if before_batch is not None:
                    before_batch(batch, _first_answer_positions(plan, batch))
                residual = final_residual(model, batch.tokens, batch.mask)
                residual = residual.flatten(0, 1)[asked.positions.to(residual.device)]
            return _read_answers(model, asked, residual)

    def kept(batch: Batch | TreeBatch) -> list[_Read]:
        if chunks is None:
            return ask(batch)
        key = chunk_key(_CHUNK_COLUMNS, [plan.sequences[row] for row in batch.rows])
        made = chunks.make(
            int(batch.rows[0]), key, lambda: pd.DataFrame(ask(batch)).rename(columns=str)
        )
        return [
            (*row[:4], tuple(map(int, row[4])), int(row[5]))
            for row in made.itertuples(index=False, name=None)
        ]

    relieve = None if streams is None else streams.drop
    for batch, read in run_halving(model, batches, kept, relieve):
        planned = [
            ((-int(sequence), number), answer)
            for sequence in batch.rows
            for number, (_, _, answer) in enumerate(plan.reads[sequence])
        ]
        for (place, answer), found in zip(planned, read, strict=True):
            row, best_margin, total, tokens, greedy, worst = found
            candidates[row].append(_Candidate(place, answer[:worst], best_margin, total, tokens))
            if len(greedy) > len(predicted[row]):
                predicted[row] = greedy
        if bar is not None:
            bar.update(len(batch.rows))
    for row, accepted in enumerate(candidates):
        if accepted:
            margin[row], logprob[row], length[row] = _best_answer(accepted)
    texts = tuple(_decode(model, tokens) for tokens in predicted)
    return Outcomes(margin, logprob, length, texts)


def _best_answer(accepted: list[_Candidate]) -> tuple[float, float, int]:
    """The best margin of a prompt's accepted answers, with the log-probability and length of one answer.

    Answers whose tokens are the same up to their worst position have one margin, which two rows of a
    batch give with different rounding. Of those, the one that the plan has first is kept: it is
    the same for every batch size.
    """
    ordered = sorted(accepted)
    best = max(ordered, key=lambda candidate: candidate.margin)
    kept = next(one for one in ordered if one.until_worst == best.until_worst)
    return best.margin, kept.logprob, kept.length


def _first_answer_positions(plan: TeacherForcing, batch: Batch) -> Int[Tensor, " batch"]:
    """The position of each row's last prompt token, where its answer is first predicted."""
    width = batch.tokens.shape[1]
    firsts = [width - len(plan.sequences[row]) + plan.reads[row][0][1] - 1 for row in batch.rows]
    return torch.tensor(firsts, device=batch.tokens.device)


@dataclass(frozen=True)
class _Asked:
    """Where the answers of a batch are read; each position that predicts one, once."""

    positions: Int[Tensor, " position"]
    """In the flattened batch."""
    at: Int[Tensor, " read"]
    """Which of them each read is at."""
    tokens: Int[Tensor, " read"]
    spans: tuple[tuple[int, slice], ...]
    """For each answer its prompt row and its reads."""


def _asked(plan: TeacherForcing, batch: Batch | TreeBatch) -> _Asked:
    where: dict[int, int] = {}
    reads: list[tuple[int, int]] = []
    spans: list[tuple[int, slice]] = []
    for row, path in zip(batch.rows, batch.paths(), strict=True):
        for prompt_row, prompt_length, answer in plan.reads[row]:
            spans.append((prompt_row, slice(len(reads), len(reads) + len(answer))))
            reads += [
                (where.setdefault(path[prompt_length - 1 + k], len(where)), token)
                for k, token in enumerate(answer)
            ]
    at, tokens = (
        torch.tensor(column, device=batch.tokens.device) for column in zip(*reads, strict=True)
    )
    positions = torch.tensor(list(where), device=batch.tokens.device)
    return _Asked(positions, at, tokens, tuple(spans))


def _read_answers(
    model: HookedModel, asked: _Asked, residual: Float[Tensor, "position d_model"]
) -> list[_Read]:
    """Reads every answer of a pass from its positions."""
    at, tokens = (part.to(residual.device) for part in (asked.at, asked.tokens))
    margins, logprobs, best = score_reads(model, residual, at, tokens)
    rows = []
    for prompt_row, here in asked.spans:
        count = here.stop - here.start
        wrong = np.flatnonzero(margins[here] <= 0)
        upto = count if wrong.size == 0 else int(wrong[0]) + 1
        greedy = tuple(int(token) for token in best[here][:upto])
        worst = int(margins[here].argmin()) + 1
        logprob = float(logprobs[here].sum())
        rows.append((prompt_row, float(margins[here].min()), logprob, count, greedy, worst))
    return rows


def _decode(model: HookedModel, tokens: tuple[int, ...]) -> str:
    return "" if model.tokenizer is None else str(model.tokenizer.decode(list(tokens)))
