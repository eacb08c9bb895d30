"""How many of the planted neurons a ranking finds."""

from __future__ import annotations

import pandas as pd

from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.ranking.table import Ranking
from relation_neurons.version import renamed

__all__ = ["planted_in", "recovered", "recovered_shared"]

_COUNTED = {
    "specific": ("relation", "interfering"),
    "background": ("relation", "interfering", "shared"),
}
"""The roles that a contrast should rank first; neurons of two relations are not `specific`."""


@renamed(score="contrast")
def recovered(
    ranking: Ranking, truth: pd.DataFrame, *, contrast: str = "specific", dose: int | None = None
) -> pd.DataFrame:
    """Compares each relation's top neurons with those that were planted.

    `specific` should rank relation and interfering neurons first; `background` shared ones too.

    Args:
        ranking: what `rank_neurons` returns for the planted model.
        truth: `Planted.truth`.
        contrast: `specific` or `background`.
        dose: neurons from the top; as many as were planted by default.

    Returns:
        A row per relation: relation, score, planted, dose, precision, recall, and false, which counts
        the neurons that are not the relation's by role (`template 3, noise 1`).

    Raises:
        UnknownOptionError: another contrast.
    """
    if contrast not in _COUNTED:
        raise UnknownOptionError(f"No truth for {contrast!r}. {near_matches(contrast, _COUNTED)}")
    rows = []
    for relation in _ranked(ranking, contrast):
        planted = _ids(planted_in(truth, relation, _COUNTED[contrast]))
        count = dose or len(planted)
        top = ranking.top(relation, count, contrast=contrast)[["layer", "neuron"]]
        found = top.merge(truth, on=["layer", "neuron"], how="left")
        wrong = [pair not in planted for pair in zip(top["layer"], top["neuron"], strict=True)]
        hits = count - sum(wrong)
        rows.append(
            {
                "relation": relation,
                "score": contrast,
                "planted": len(planted),
                "dose": count,
                "precision": hits / count,
                "recall": hits / len(planted),
                "false": _role_counts(found.loc[wrong, "role"]),
            }
        )
    return pd.DataFrame(rows)


@renamed(score="contrast")
def recovered_shared(
    ranking: Ranking, truth: pd.DataFrame, *, contrast: str = "background"
) -> pd.DataFrame:
    """Compares the neurons in two relations' top sets with the shared ones that were planted.

    The sets are as large as what was planted for each relation, shared neurons included.

    Args:
        ranking: what `rank_neurons` returns for the planted model.
        truth: `Planted.truth`.
        contrast: `background`, or `specific` to see that it finds none.

    Returns:
        A row per pair of relations: relation, other, contrast, planted, found, precision (NaN where the
        sets share nothing), recall (NaN where nothing was planted), and false, by role.
    """
    names = _ranked(ranking, contrast)
    tops = {}
    for name in names:
        count = len(planted_in(truth, name, _COUNTED["background"]))
        tops[name] = _ids(ranking.top(name, count, contrast=contrast))
    shared = truth[truth["role"] == "shared"]
    role = {(int(row.layer), int(row.neuron)): row.role for row in truth.itertuples(index=False)}
    rows = []
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            here = shared[(shared["relation"] == first) & (shared["other"] == second)]
            planted, found = _ids(here), tops[first] & tops[second]
            hits = len(planted & found)
            wrong = pd.Series([role[pair] for pair in sorted(found - planted)], dtype=str)
            rows.append(
                {
                    "relation": first,
                    "other": second,
                    "score": contrast,
                    "planted": len(planted),
                    "found": len(found),
                    "precision": hits / len(found) if found else float("nan"),
                    "recall": hits / len(planted) if planted else float("nan"),
                    "false": _role_counts(wrong),
                }
            )
    return pd.DataFrame(rows)


def planted_in(truth: pd.DataFrame, relation: str, roles: tuple[str, ...]) -> pd.DataFrame:
    """The neurons of these roles that are the relation's own, or its half of a shared pair."""
    own = truth["relation"] == relation
    shared = (truth["role"] == "shared") & (truth["other"] == relation)
    return truth[truth["role"].isin(roles) & (own | shared)].reset_index(drop=True)


def _role_counts(roles: pd.Series) -> str:
    """How many neurons have each role, the commonest first: `template 3, noise 1`."""
    return ", ".join(f"{role} {number}" for role, number in roles.value_counts().items())


def _ranked(ranking: Ranking, contrast: str) -> list[str]:
    return [relation for relation, _ in ranking.labels(contrast)]


def _ids(neurons: pd.DataFrame) -> set[tuple[int, int]]:
    return set(zip(neurons["layer"].astype(int), neurons["neuron"].astype(int), strict=True))
