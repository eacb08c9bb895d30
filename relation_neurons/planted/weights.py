"""The planted model's weights, set by hand.

The residual stream is a list of named features, one a coordinate. One of them, `const`, outweighs
the rest, so that RMSNorm leaves the others as they are. Attention in layer 0 looks at the words
that matter (subjects and the relations' nouns) and copies their features from `here` to `bag`; at
the last position each weighs one half. Neurons read features and write others:

    logit of an answer o of r = want r + direct * bag r - hinder
                                + sum over the subjects i of o of (D - theta) * bag i
    logit of the subject i    = D * bag i

so the model repeats the subject where what r's neurons write into `want r` is below theta, a number
of each fact. Everything that does not matter is written to `dead`, which nothing reads.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from relation_neurons.planted.facts import NOUNS

__all__ = ["LAYERS", "place_neurons", "residual_width", "set_weights"]

LAYERS = 3
"""Sinks lie in the first; relation, shared and interfering neurons in the others."""

_PLACEMENT_SALT = 0x706C616E
"""Keeps the placement of neurons apart from other draws from the same seed."""

_WEIGHT_SALT = 0x77656967
"""Keeps looks, loudness, noise and thresholds apart from other draws from the same seed."""

_SPARE = 2.5
"""Neurons for each one with a role; the rest are noise."""

_QUESTION = ("?", "What", "Which", "Who", "When", "Where", "How", "Until")

_LOOKS = 12
"""Features in which every word differs from every other; noise reads them."""

_DEAD = 4

_CONST = 64.0

_GAIN = 16.0
"""Of a planted neuron's gate: far enough from 0 for SiLU to be linear."""

_NOISE = 0.05

_SHARED = 0.2
"""How much of `want r` the shared neurons write, of 1."""

_HINDER = 0.3

_ECHO = 0.2
"""What an interfering neuron answers to a subject that it hinders, against 1 for its relation."""

_DIRECT = 0.05

_ELSEWHERE = 0.3

_DEFAULT = 1.2

_THETA = {"direct": 0.0, "unknown": _DEFAULT, "hindered": 1.0 + _DIRECT - 0.4 * _HINDER}

_THETA_CARRIED = (0.3, 0.6)

_LOGIT = 20.0


def place_neurons(facts: pd.DataFrame, neurons: int, distractors: bool, seed: int) -> pd.DataFrame:
    """Draws where every neuron lies and what it is.

    Returns:
        layer, neuron, role, relation, other; in (layer, neuron) order, every neuron of the model.
    """
    names = list(dict.fromkeys(facts["relation"]))
    wanted: list[tuple[str, str, str]] = []
    wanted += [("relation", name, "") for name in names for _ in range(neurons)]
    wanted += [
        ("shared", first, second)
        for first, second in zip(names[::2], names[1::2], strict=False)
        for _ in range(neurons // 2)
    ]
    wanted += [("interfering", names[0], names[-1])] * max(4, neurons // 2)
    late = len(wanted)
    if distractors:
        wanted += [
            ("template", name, word)
            for name in names
            for word in NOUNS[name]
            for _ in range(neurons)
        ]
        wanted += [("entity", "", subject) for subject in dict.fromkeys(facts["subject"])]
        wanted += [(role, "", "") for role in ("question", "loud", "sink") for _ in range(neurons)]
    width = 32 * max(4, int(np.ceil(len(wanted) * _SPARE / LAYERS / 32)))
    rng = np.random.default_rng([seed, _PLACEMENT_SALT])
    free = rng.permutation(LAYERS * width).tolist()
    placed = [("noise", "", "")] * (LAYERS * width)
    for number, what in enumerate(wanted):
        layers = (1, 2) if number < late else (0,) if what[0] == "sink" else range(LAYERS)
        place = next(i for i, slot in enumerate(free) if slot // width in layers)
        placed[free.pop(place)] = what
    role, relation, other = zip(*placed, strict=True)
    return pd.DataFrame(
        {
            "layer": np.repeat(np.arange(LAYERS), width),
            "neuron": np.tile(np.arange(width), LAYERS),
            "role": role,
            "relation": relation,
            "other": other,
        }
    )


def residual_width(facts: pd.DataFrame) -> int:
    """Returns the coordinates of the residual stream, an even number for the rotary embedding."""
    count = len(_features(facts))
    return count + count % 2


def set_weights(
    state: dict[str, torch.Tensor],
    words: list[str],
    facts: pd.DataFrame,
    truth: pd.DataFrame,
    seed: int,
) -> None:
    """Sets every weight of a zeroed state dict of a Hugging Face Llama.

    Args:
        state: its tensors, changed in place.
        words: the vocabulary, in the order of its ids.
        facts: from `make_facts`.
        truth: from `place_neurons`: every neuron and its role.
        seed: of the words' looks, the neurons' loudness and noise, and the facts' thresholds.
    """
    at, width = _features(facts), residual_width(facts)
    rng = np.random.default_rng([seed, _WEIGHT_SALT])
    norm = torch.full((width,), _CONST / width**0.5)
    norm[at["const"]] = width**-0.5  # read as 1
    for name, value in state.items():
        if name.endswith("norm.weight"):
            value.copy_(norm)
    state["model.embed_tokens.weight"].copy_(_embedding(words, facts, at, width, rng))
    _set_attention(state, facts, at, width)
    _set_neurons(state, facts, truth, at, rng)
    state["lm_head.weight"].copy_(_unembedding(words, facts, at, width, rng))


def _copied(facts: pd.DataFrame) -> list[str]:
    """The features that attention copies from `here` to `bag`: relations, nouns, subjects."""
    names = list(dict.fromkeys(facts["relation"]))
    nouns = [f"word {word}" for name in names for word in NOUNS[name]]
    return [*(f"ask {name}" for name in names), *nouns, *dict.fromkeys(facts["subject"])]


def _features(facts: pd.DataFrame) -> dict[str, int]:
    """Names every coordinate of the residual stream."""
    copied = _copied(facts)
    names = ["const", "bos", "question", "content", "hinder"]
    names += [f"look {i}" for i in range(_LOOKS)] + [f"dead {i}" for i in range(_DEAD)]
    names += [f"want {name}" for name in dict.fromkeys(facts["relation"])]
    names += [f"here {name}" for name in copied] + [f"bag {name}" for name in copied]
    return {name: i for i, name in enumerate(names)}


def _embedding(
    words: list[str], facts: pd.DataFrame, at: dict[str, int], width: int, rng: np.random.Generator
) -> Float[torch.Tensor, "word d_model"]:
    table = np.zeros((len(words), width), dtype=np.float32)
    table[:, at["const"]] = _CONST
    looks = [at[f"look {i}"] for i in range(_LOOKS)]
    table[:, looks] = rng.normal(size=(len(words), _LOOKS)) / _LOOKS**0.5
    row = {word: i for i, word in enumerate(words)}
    table[row["<s>"], looks] = 0.0
    table[row["<s>"], at["bos"]] = 1.0
    for word in _QUESTION:
        if word in row:
            table[row[word], at["question"]] = 1.0
    for subject in dict.fromkeys(facts["subject"]):
        table[row[subject], [at["content"], at[f"here {subject}"]]] = 1.0
    for name in dict.fromkeys(facts["relation"]):
        for word in NOUNS[name]:
            features = ("content", f"here ask {name}", f"here word {word}")
            table[row[word], [at[feature] for feature in features]] = 1.0
    return torch.from_numpy(table)


def _set_attention(
    state: dict[str, torch.Tensor], facts: pd.DataFrame, at: dict[str, int], width: int
) -> None:
    """Layer 0 looks at content words, and at the first position where there is none yet.

    Queries and keys use the one coordinate that the rotary embedding turns the least.
    """
    slow = width // 2 - 1
    before = "model.layers.0.self_attn."
    state[f"{before}q_proj.weight"][slow, at["const"]] = 1.0
    state[f"{before}k_proj.weight"][slow, at["content"]] = 12.0 * width**0.5
    state[f"{before}k_proj.weight"][slow, at["bos"]] = 6.0 * width**0.5
    state[f"{before}v_proj.weight"].copy_(torch.eye(width))
    for name in _copied(facts):
        state[f"{before}o_proj.weight"][at[f"bag {name}"], at[f"here {name}"]] = 1.0


def _set_neurons(
    state: dict[str, torch.Tensor],
    facts: pd.DataFrame,
    truth: pd.DataFrame,
    at: dict[str, int],
    rng: np.random.Generator,
) -> None:
    hindered = facts.loc[facts["kind"] == "hindered", "subject"].to_list()
    looks, dead = (
        [at[f"{kind} {i}"] for i in range(count)]
        for kind, count in (("look", _LOOKS), ("dead", _DEAD))
    )
    paired = set(truth.loc[truth["role"] == "shared", ["relation", "other"]].to_numpy().ravel())
    bent = 1.0 + np.exp(-_GAIN * _ECHO / 2)  # SiLU is below the identity for so small a gate
    totals = {"relation": 1.0, "shared": _SHARED, "interfering": _HINDER / _ECHO * bent}
    loudness = rng.uniform(0.8, 1.2, len(truth))
    mates = pd.Series(loudness).groupby([truth["role"], truth["relation"]]).transform("sum")
    for number, row in enumerate(truth.itertuples(index=False)):
        before = f"model.layers.{row.layer}.mlp."
        gate = state[f"{before}gate_proj.weight"][row.neuron]
        up = state[f"{before}up_proj.weight"][row.neuron]
        out = state[f"{before}down_proj.weight"][:, row.neuron]
        reads, writes = _wiring(
            row.role, row.relation, row.other, "here" if number % 2 else "bag", hindered
        )
        noise = {"noise": 1.0, "sink": 0.0, "interfering": 0.2}.get(row.role, _NOISE * _GAIN)
        gate[looks] = torch.from_numpy(rng.normal(size=_LOOKS) * noise).float()
        for feature, weight in reads.items():
            gate[at[feature]] += _GAIN * weight
        strength = loudness[number]
        scale = {"noise": 1.0, "loud": 4.0 / _GAIN, "sink": 8.0}.get(row.role, 1.0 / _GAIN)
        up[at["const"]] = scale * strength * (-1 if row.role == "sink" and number % 2 else 1)
        total = totals.get(row.role, 0.0)
        if row.role == "relation" and row.relation in paired:
            total -= _SHARED  # what the neurons of the pair write
        for feature in writes:
            out[at[feature]] = total / mates[number]
        if not writes:
            direction = rng.normal(size=_DEAD)
            length = {"noise": 0.1 * np.exp(0.7 * rng.normal()), "loud": 0.5}.get(row.role, 1.0)
            out[dead] = torch.from_numpy(length * direction / np.linalg.norm(direction)).float()


def _wiring(
    role: str, relation: str, other: str, place: str, hindered: list[str]
) -> tuple[dict[str, float], list[str]]:
    """What a neuron's gate reads, and which features it writes (none: `dead`)."""
    if role == "relation":
        return {f"bag ask {relation}": 1.0}, [f"want {relation}"]
    if role == "shared":
        both = (relation, other)
        return {f"bag ask {name}": 1.0 for name in both}, [f"want {name}" for name in both]
    if role == "interfering":
        echoes = {f"bag {subject}": _ECHO for subject in hindered}
        return {f"bag ask {relation}": 1.0} | echoes, ["hinder"]
    features = {
        "template": f"{place} word {other}",
        "entity": f"{place} {other}",
        "question": "question",
        "loud": "const",
        "sink": "bos",
    }
    return ({features[role]: 1.0} if role in features else {}), []


def _unembedding(
    words: list[str], facts: pd.DataFrame, at: dict[str, int], width: int, rng: np.random.Generator
) -> Float[torch.Tensor, "word d_model"]:
    table = np.zeros((len(words), width), dtype=np.float32)
    row = {word: i for i, word in enumerate(words)}
    names = list(dict.fromkeys(facts["relation"]))
    for subject in dict.fromkeys(facts["subject"]):
        table[row[subject], at[f"bag {subject}"]] = _DEFAULT
    carried = rng.uniform(*_THETA_CARRIED, len(facts))
    last = facts.loc[facts["kind"] == "hindered", "relation"].unique()
    for fact, own in zip(facts.itertuples(index=False), carried, strict=True):
        answer = table[row[fact.answer]]
        answer[at[f"want {fact.relation}"]] = 1.0
        for name in names:
            answer[at[f"bag ask {name}"]] = _DIRECT if name == fact.relation else -_ELSEWHERE
        answer[at["hinder"]] = -1.0 if fact.relation in last else 0.0
        answer[at[f"bag {fact.subject}"]] = _DEFAULT - _THETA.get(fact.kind, own)
    return torch.from_numpy(table * _LOGIT)
