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
from relation_neurons.planted.planted_neurons import place_neurons
from relation_neurons.ranking.table import Ranking
from relation_neurons.relations.relation import Relation

__all__ = ["Planted", "planted_model", "recovered", "recovered_shared"]

_COUNTED = {
    "specific": ("relation", "interfering"),
    "background": ("relation", "interfering", "shared"),
}
"""The roles that a score should rank first; neurons of two relations are not `specific`."""


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
        """Gives the neurons of a relation, `relation` and `shared` ones by default.

        Raises:
            UnknownRelationError: no such relation.
        """
        known = [one.name for one in self.relations]
        if relation not in known:
            raise UnknownRelationError(
                f"The planted model has no {relation!r}. {near_matches(relation, known)}"
            )
        return _planted(self.truth, relation, roles or ("relation", "shared"))


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


def recovered(
    ranking: Ranking, truth: pd.DataFrame, *, score: str = "specific", dose: int | None = None
) -> pd.DataFrame:
    """Compares each relation's top neurons with those that were planted.

    `specific` should rank relation and interfering neurons first; `background` shared ones too.

    Args:
        ranking: what `rank_neurons` gives for the planted model.
        truth: `Planted.truth`.
        score: `specific` or `background`.
        dose: neurons from the top; as many as were planted by default.

    Returns:
        A row per relation: relation, score, planted, dose, precision, recall, and false, which counts
        the neurons that are not the relation's by role (`template 3, noise 1`).

    Raises:
        UnknownOptionError: another score.
    """
    if score not in _COUNTED:
        raise UnknownOptionError(f"No truth for {score!r}. {near_matches(score, _COUNTED)}")
    rows = []
    for relation in _ranked(ranking, score):
        planted = _ids(_planted(truth, relation, _COUNTED[score]))
        count = dose or len(planted)
        top = ranking.top(relation, count, score=score)[["layer", "neuron"]]
        found = top.merge(truth, on=["layer", "neuron"], how="left")
        wrong = [pair not in planted for pair in zip(top["layer"], top["neuron"], strict=True)]
        hits = count - sum(wrong)
        said = found.loc[wrong, "role"].value_counts()
        rows.append(
            {
                "relation": relation,
                "score": score,
                "planted": len(planted),
                "dose": count,
                "precision": hits / count,
                "recall": hits / len(planted),
                "false": ", ".join(f"{role} {number}" for role, number in said.items()),
            }
        )
    return pd.DataFrame(rows)


def recovered_shared(
    ranking: Ranking, truth: pd.DataFrame, *, score: str = "background"
) -> pd.DataFrame:
    """Compares the neurons in two relations' top sets with the shared ones that were planted.

    The sets are as large as what was planted for each relation, shared neurons included.

    Args:
        ranking: what `rank_neurons` gives for the planted model.
        truth: `Planted.truth`.
        score: `background`, or `specific` to see that it finds none.

    Returns:
        A row per pair of relations: relation, other, score, planted, found, precision (NaN where the
        sets share nothing), recall (NaN where nothing was planted), and false, by role.
    """
    names = _ranked(ranking, score)
    tops = {}
    for name in names:
        count = len(_planted(truth, name, _COUNTED["background"]))
        tops[name] = _ids(ranking.top(name, count, score=score))
    shared = truth[truth["role"] == "shared"]
    role = {(int(row.layer), int(row.neuron)): row.role for row in truth.itertuples(index=False)}
    rows = []
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            here = shared[(shared["relation"] == first) & (shared["other"] == second)]
            planted, found = _ids(here), tops[first] & tops[second]
            hits = len(planted & found)
            said = pd.Series(
                [role[pair] for pair in sorted(found - planted)], dtype=str
            ).value_counts()
            rows.append(
                {
                    "relation": first,
                    "other": second,
                    "score": score,
                    "planted": len(planted),
                    "found": len(found),
                    "precision": hits / len(found) if found else float("nan"),
                    "recall": hits / len(planted) if planted else float("nan"),
                    "false": ", ".join(f"{name} {times}" for name, times in said.items()),
                }
            )
    return pd.DataFrame(rows)


def _planted(truth: pd.DataFrame, relation: str, roles: tuple[str, ...]) -> pd.DataFrame:
    """The neurons of these roles that are the relation's own, or its half of a shared pair."""
    own = truth["relation"] == relation
    shared = (truth["role"] == "shared") & (truth["other"] == relation)
    return truth[truth["role"].isin(roles) & (own | shared)].reset_index(drop=True)


def _ranked(ranking: Ranking, score: str) -> list[str]:
    return [relation for relation, _ in ranking.labels(score)]


def _ids(neurons: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(neurons["layer"].astype(int), neurons["neuron"].astype(int), strict=True))
