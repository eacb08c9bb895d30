"""A planted model: a small Llama whose relation neurons are known by construction.

A method that finds neurons can be judged only where they are known. `planted_model` sets a small
checkpoint's weights by hand, saves it in Hugging Face format and loads it like any other. It
answers made-up facts of several relations through neurons of known roles:

| role | what it does |
| --- | --- |
| `relation` | fires on prompts of one relation, in any wording; its facts need it |
| `shared` | the same for two relations, `relation` and `other` (versatility) |
| `interfering` | fires on `relation`, and pushes some facts of `other` below a default (interference) |
| `template` | fires on one wording of one relation, whose noun is `other` |
| `entity` | fires on one subject, `other` |
| `question` | fires on question words, whatever is asked |
| `loud` | large everywhere, and nothing reads it |
| `sink` | huge at the first position only |
| `noise` | a small random response to every word |

Subjects are shared by all relations and by the neutral prompts, and so are question words, so that
neither entity nor form tells relations apart.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from relation_neurons.backends.base import HookedModel
from relation_neurons.errors import UnknownOptionError, UnknownRelationError, near_matches
from relation_neurons.models.loading import load_model
from relation_neurons.models.provenance import note_source
from relation_neurons.planted.checkpoint import save_checkpoint
from relation_neurons.planted.facts import NOUNS, SUBJECTS, make_facts, make_relations
from relation_neurons.planted.recovery import planted_in
from relation_neurons.planted.weights import place_neurons
from relation_neurons.relations.relation import Relation

__all__ = ["Planted", "planted_model"]


@dataclass(frozen=True)
class Planted:
    """A model with the truth about its neurons and facts."""

    model: HookedModel
    relations: tuple[Relation, ...]
    """With detection templates and two held-out ones, whose nouns detection never saw."""
    truth: pd.DataFrame
    """Every neuron: layer, neuron, role, relation, other."""
    facts: pd.DataFrame
    """Every fact: relation, subject, answer, kind and other. `carried` by its relation's neurons;
    `direct`: answered without them too; `unknown`: answered wrongly; `hindered`: answered wrongly
    as long as the interfering neurons of `other` are there."""
    folder: Path | None
    """Where the checkpoint lies, if it was kept."""

    def __repr__(self) -> str:
        names = ", ".join(relation.name for relation in self.relations)
        return f"Planted({names}; {len(self.truth)} neurons in {self.model.cfg.n_layers} layers)"

    def neurons(self, relation: str, *roles: str) -> pd.DataFrame:
        """Returns the neurons of a relation, `relation` and `shared` ones by default.

        Raises:
            UnknownRelationError: no such relation.
        """
        known = [one.name for one in self.relations]
        if relation not in known:
            raise UnknownRelationError(
                f"The planted model has no {relation!r}. {near_matches(relation, known)}"
            )
        return planted_in(self.truth, relation, roles or ("relation", "shared"))


def planted_model(
    folder: str | Path | None = None,
    *,
    relations: int = 4,
    subjects: int = 40,
    neurons: int = 8,
    templates: int = 3,
    distractors: bool = True,
    carried: float = 1.0,
    unknown: float = 0.15,
    seed: int = 0,
) -> Planted:
    """Makes, saves and loads a Llama-architecture model with hand-set neurons.

    Args:
        folder: where the checkpoint is kept, in Hugging Face format; nowhere by default.
        relations: 2 to 8; neighbours (the first and second, the third and fourth) share neurons, and
            neurons of the first interfere with the last.
        subjects: facts per relation, 20 to 60.
        neurons: relation neurons per relation; half as many are shared by a pair, and as
            many (at least 4) interfere.
        templates: detection templates per relation, 1 to 3 (statement, question, statement).
        distractors: whether there are template, entity, question, loud and sink neurons.
        carried: share of the known facts that need the relation's neurons; the others are answered
            through attention alone as well. The effect of ablation at home is about minus this share
            of the accuracy.
        unknown: share of the facts that the model answers wrongly in every template.
        seed: of the answers, of the neurons' places and of the noise.

    Raises:
        UnknownOptionError: a number outside its range.

    >>> planted = planted_model(seed=1)
    >>> planted.truth["role"].value_counts()["relation"]
    np.int64(32)
    >>> planted.neurons("capital").columns.to_list()
    ['layer', 'neuron', 'role', 'relation', 'other']
    """
    ranges: dict[str, tuple[float, float, float]] = {
        "relations": (relations, 2, len(NOUNS)),
        "subjects": (subjects, 20, len(SUBJECTS)),
        "neurons": (neurons, 4, 64),
        "templates": (templates, 1, 3),
        "carried": (carried, 0, 1),
        "unknown": (unknown, 0, 1),
        "seed": (seed, 0, 2**63),
    }
    for name, (value, low, high) in ranges.items():
        if not low <= value <= high:
            raise UnknownOptionError(f"{name} is {value}; expected {low} to {high}.")
    facts = make_facts(relations, subjects, carried=carried, unknown=unknown, seed=seed)
    truth = place_neurons(facts, neurons, distractors, seed)
    with tempfile.TemporaryDirectory() as passing:
        kept = Path(folder) if folder is not None else None
        target = kept or Path(passing) / "planted"
        target.mkdir(parents=True, exist_ok=True)
        save_checkpoint(target, facts, truth, seed)
        model = load_model(target, dtype="float32", device="cpu")
    model.cfg.model_name = "planted"
    if kept is None:  # it is gone from where it was loaded
        note_source(None, model)
    return Planted(model, make_relations(facts, templates), truth, facts, kept)
