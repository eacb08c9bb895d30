"""Versatility: neurons shared by relations, or by languages.

This is finding (ii) of the paper. How many neurons chance shares is not dose^2 / neurons: relations ranked
against the same neutral prompts share negatives, and neurons correlate, so that noise shares several
times that. It is counted where the prompts' roles are dealt out anew (`ranking.overlap_null`):

    expected = mean over deals of the neurons shared
    p = (1 + deals that share as many) / (1 + deals)

A run keeps its deals, and its ranking carries them. Where there are none, expected and p are NaN and
`attrs["no_null"]` says why.

Overlap is read from `background` rankings: sets ranked against all prompts of one another share little. Where
AP = 1, every positive of r stands above every positive of r'; the AP of the same neuron for an r' of equal
size n is then at most

    1 - (H_2n - H_n)  (positives at ranks n + 1 ... 2n: the mean of i / (n + i); H: harmonic numbers)

which is 0.331 for n = 10 and 0.312 for n = 48, above its limit 1 - ln 2 for every n, and 0.683 where 60
positives stand below 10. Where AP < 1, or negatives are a sample, the bound does not hold. So a nearly
empty heatmap of `specific` sets says nothing about the model (method 6; pitfall 21).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy import stats

from relation_neurons.analysis.dealt_overlap import DealtOverlap, NoNull, chance_of, dealt_overlap
from relation_neurons.analysis.effects import effect_cells, only_dose, paired_changes
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.neurons import neuron_name
from relation_neurons.ranking.table import Ranking
from relation_neurons.version import renamed

__all__ = ["overlap_matrix", "overlap_total", "set_intersections", "transfer_matrix"]

_KINDS = {
    (False, True): "relation",
    (True, False): "language",
    (False, False): "both",
}
"""What two sets differ in, by whether relation and language are the same."""


@renamed(score="contrast")
def overlap_matrix(
    ranking: Ranking,
    *,
    dose: int = 100,
    contrast: str = "background",
    null: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Counts the neurons that two relations (or languages) share among their top `dose`.

    Args:
        ranking: from `rank_neurons`, or of a saved run, which carries its deals.
        dose: size of each top set.
        contrast: `background` by default; see the module docstring on `specific`.
        null: from `overlap_null`; the ranking's own by default.

    Returns:
        A row per ordered pair: relation, language, other, other_language, score, dose, shared, expected
        (by chance: the mean over deals), ratio (NaN where no deal shares any), jaccard, p_value (how
        many deals share as many) and q_value (Benjamini-Hochberg over pairs). A set with itself is not
        tested. In `attrs`:

        - `no_null`: why there is no expected, ratio, p_value and q_value, or empty.
        - `deals`, `shared_total`, `expected_total`, `p_total`: over all pairs, see `overlap_total`.
        - `left_out`: the relations without such a set, with the reason.
        - `shots`: whether solved examples preceded the prompts.
    """
    sets = _top_sets(ranking, dose, contrast)
    shared = _shared(sets)
    dealt = dealt_overlap(ranking, null, dose=dose, contrast=contrast, sets=list(sets))
    nothing = np.full(shared.shape, np.nan)
    expected, p_value, q_value = nothing.copy(), nothing.copy(), nothing.copy()
    above = np.triu_indices(len(sets), 1)
    if not isinstance(dealt, NoNull) and len(above[0]):
        expected[above], p_value[above] = chance_of(shared[above], dealt.shared[:, *above])
        q_value[above] = stats.false_discovery_control(p_value[above])
        for values in (expected, p_value, q_value):
            values.T[above] = values[above]
    rows = [
        {
            "relation": relation,
            "language": language,
            "other": other,
            "other_language": other_language,
            "score": contrast,
            "dose": dose,
            "shared": int(shared[i, j]),
            "expected": expected[i, j],
            "ratio": _ratio(int(shared[i, j]), float(expected[i, j])),
            "jaccard": shared[i, j] / (2 * dose - shared[i, j]),
            "p_value": p_value[i, j],
            "q_value": q_value[i, j],
        }
        for i, (relation, language) in enumerate(sets)
        for j, (other, other_language) in enumerate(sets)
    ]
    table = _noting(pd.DataFrame(rows), ranking, contrast, dealt)
    total = _total(shared, dealt, list(combinations(range(len(sets)), 2)))
    table.attrs.update({f"{name}_total": value for name, value in total.items()})
    return table


@renamed(score="contrast")
def overlap_total(
    ranking: Ranking,
    *,
    dose: int = 100,
    contrast: str = "background",
    null: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Tests whether sets share more neurons than chance over all pairs together.

    Pairs of one run are no independent tests: all relations share their negatives, so what is chance in
    one pair is so in others. Their sum is compared with the sum in each deal, as a single test.

    Args:
        ranking: as in `overlap_matrix`, and so are dose, contrast and null.

    Returns:
        A row for `all` pairs, and one for each kind of pairs there is: two relations in one language
        (`relation`), one in two languages (`language`), and two in two (`both`). Columns: pairs (the
        kind), score, dose, n (how many), shared, expected, ratio, p_value, deals. There is no row where
        one set stands alone. `attrs` holds no_null, deals, left_out and shots, as in `overlap_matrix`.
    """
    sets = _top_sets(ranking, dose, contrast)
    shared = _shared(sets)
    dealt = dealt_overlap(ranking, null, dose=dose, contrast=contrast, sets=list(sets))
    kinds: dict[str, list[tuple[int, int]]] = {}
    for (i, one), (j, other) in combinations(enumerate(sets), 2):
        kind = _KINDS[one[0] == other[0], one[1] == other[1]]
        kinds.setdefault("all", []).append((i, j))
        kinds.setdefault(kind, []).append((i, j))
    rows = []
    for kind, pairs in kinds.items():
        total = _total(shared, dealt, pairs)
        rows.append(
            {
                "pairs": kind,
                "score": contrast,
                "dose": dose,
                "n": len(pairs),
                "shared": int(total["shared"]),
                "expected": total["expected"],
                "ratio": _ratio(int(total["shared"]), total["expected"]),
                "p_value": total["p"],
                "deals": 0 if isinstance(dealt, NoNull) else dealt.deals,
            }
        )
    columns = ["pairs", "score", "dose", "n", "shared", "expected", "ratio", "p_value", "deals"]
    return _noting(pd.DataFrame(rows, columns=columns), ranking, contrast, dealt)


@renamed(score="contrast")
def set_intersections(
    ranking: Ranking,
    *,
    dose: int = 100,
    contrast: str = "background",
    smallest: int = 2,
    null: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Groups the neurons of the top sets by exactly which relations they belong to.

    Each neuron counts once, under all its relations, as in an UpSet plot.

    Args:
        ranking: as in `overlap_matrix`.
        dose: size of each top set.
        contrast: `background` by default; see the module docstring on `specific`.
        smallest: combinations of fewer relations are left out.
        null: from `overlap_null`; the ranking's own by default.

    Returns:
        A row per combination that holds any neuron, the largest first: relations (a tuple, named with
        their language where there are several), degree, shared, expected (mean over deals of the neurons
        in exactly those sets), ratio (NaN where no deal has any), p_value (how many deals have as many),
        names (of the neurons, in (layer, index) order), score, dose. Neurons of one relation alone have
        no null. There is no row if no neuron is in `smallest` sets. `attrs` holds no_null, deals,
        left_out and shots, as in `overlap_matrix`.

    Raises:
        UnknownOptionError: there is no ranking of that contrast.
        DoseError: the ranking does not hold that dose.
    """
    labels = ranking.labels(contrast)
    sets = _top_sets(ranking, dose, contrast)
    dealt = dealt_overlap(ranking, null, dose=dose, contrast=contrast, sets=list(sets))
    names = [labels[pair] for pair in sets]
    members: dict[tuple[int, int], list[int]] = {}
    for place, neurons in enumerate(sets.values()):
        for neuron in neurons:
            members.setdefault(neuron, []).append(place)
    groups: dict[tuple[int, ...], list[str]] = {}
    for neuron in sorted(members):
        groups.setdefault(tuple(members[neuron]), []).append(neuron_name(*neuron))
    chance = {} if isinstance(dealt, NoNull) else dealt.combined()
    rows = []
    for places, found in groups.items():
        if len(places) < smallest:
            continue
        expected = p_value = float("nan")
        if not isinstance(dealt, NoNull) and len(places) > 1:
            none = np.zeros(dealt.deals, dtype=np.int64)
            mean, p = chance_of(np.array(len(found)), chance.get(places, none))
            expected, p_value = float(mean), float(p)
        rows.append(
            {
                "relations": tuple(names[place] for place in places),
                "degree": len(places),
                "shared": len(found),
                "expected": expected,
                "ratio": _ratio(len(found), expected),
                "p_value": p_value,
                "names": found,
                "score": contrast,
                "dose": dose,
            }
        )
    columns = ["relations", "degree", "shared", "expected", "ratio", "p_value", "names"]
    table = pd.DataFrame(rows, columns=[*columns, "score", "dose"])
    order = table.sort_values(["shared", "degree"], ascending=False, kind="stable")
    return _noting(order.reset_index(drop=True), ranking, contrast, dealt)


@renamed(score="contrast")
def transfer_matrix(
    effects: pd.DataFrame,
    *,
    dose: int | None = None,
    quantity: str = "correct",
    contrast: str = "specific",
    control: str = "control_contribution",
    min_prompts: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Returns how far each relation's set transfers to other relations and languages.

    Args:
        effects: the sweep's table, with sets and held-out prompts of every language.
        dose: neurons ablated; the middle dose of the sweep by default.
        quantity: `correct` (net flips per prompt) or `margin` (logits).
        contrast: the contrast of the ranking whose sets are used.
        control: the control that the effect is compared with.
        min_prompts: cells with fewer held-out prompts have no transfer.
        seed: of the sign-flip test.

    Returns:
        A row per (ablated, ablated_language, relation, language): dose, the columns of `effect_cells`,
        and transfer: the difference as a share of the effect of the judged
        relation's own set in that language (1 at home). It is NaN where that share would be noise:
        with too few prompts, or if the interval of the own set contains 0.
    """
    paired, chosen = only_dose(paired_changes(effects, contrast=contrast, control=control), dose)
    keys = ["ablated", "ablated_language", "relation", "language"]
    cells = effect_cells(paired, keys, quantity=quantity, seed=seed)
    at_home = (cells["ablated"] == cells["relation"]) & (
        cells["ablated_language"] == cells["language"]
    )
    shown = at_home & ((cells["low"] > 0) | (cells["high"] < 0))
    own = cells[shown].set_index(["relation", "language"])["difference"]
    reference = pd.Series(
        [own.get(key) for key in zip(cells["relation"], cells["language"], strict=True)],
        index=cells.index,
        dtype=float,
    )
    cells.insert(4, "dose", chosen)
    share = cells["difference"] / reference
    return cells.assign(transfer=share.where(cells["n"] >= min_prompts))


def _noting(
    table: pd.DataFrame, ranking: Ranking, contrast: str, dealt: DealtOverlap | NoNull
) -> pd.DataFrame:
    """Records in `attrs` what the table lacks, how many deals there are, and whether examples were shown."""
    table.attrs["no_null"] = dealt.reason if isinstance(dealt, NoNull) else ""
    table.attrs["deals"] = 0 if isinstance(dealt, NoNull) else dealt.deals
    table.attrs["left_out"] = ranking.missing(contrast)
    table.attrs["shots"] = ranking.shots
    return table


def _total(
    shared: Int[np.ndarray, "set set"],
    dealt: DealtOverlap | NoNull,
    pairs: Sequence[tuple[int, int]],
) -> dict[str, float]:
    """Compares what some pairs of sets share in all with what they share in each deal."""
    if not pairs:
        return dict.fromkeys(("shared", "expected", "p"), float("nan"))
    at = tuple(np.array(pairs).T)
    found = np.asarray(shared[at].sum())
    expected, p_value = np.array(np.nan), np.array(np.nan)
    if not isinstance(dealt, NoNull):
        expected, p_value = chance_of(found, dealt.shared[:, *at].sum(axis=1))
    return {"shared": float(found), "expected": float(expected), "p": float(p_value)}


def _ratio(shared: int, expected: float) -> float:
    """Returns how many times chance is shared; NaN where chance shares nothing or is not known."""
    return float(shared / expected) if expected > 0 else float("nan")


def _shared(
    sets: dict[tuple[str, str], set[tuple[int, int]]],
) -> Int[np.ndarray, "set set"]:
    """Counts the neurons that two sets share."""
    held = list(sets.values())
    return np.array([[len(one & other) for other in held] for one in held])


def _top_sets(
    ranking: Ranking, dose: int, contrast: str
) -> dict[tuple[str, str], set[tuple[int, int]]]:
    """Returns the (layer, neuron) pairs of every relation's top set, by relation and language."""
    pairs = ranking.labels(contrast)
    if not pairs:
        contrasts = set(ranking.frame["score"])
        raise UnknownOptionError(
            f"There is no ranking of the contrast {contrast!r}. {near_matches(contrast, contrasts)}"
        )
    sets = {}
    for relation, language in pairs:
        top = ranking.top(relation, dose, contrast=contrast, language=language)
        sets[relation, language] = set(
            zip(top["layer"].tolist(), top["neuron"].tolist(), strict=True)
        )
    return sets
