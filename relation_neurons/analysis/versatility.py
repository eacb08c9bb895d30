"""Versatility: neurons shared by relations, or by languages.

This is finding (ii) of the paper. Overlap is read from `background` rankings: sets ranked against all
prompts of one another share little. Where AP = 1, every positive of r stands above every positive
of r'; the AP of the same neuron for an r' of equal size n is then at most

    1 - (H_2n - H_n)  (positives at ranks n + 1 ... 2n: the mean of i / (n + i); H: harmonic numbers)

which is 0.331 for n = 10 and 0.312 for n = 48, above its limit 1 - ln 2 for every n, and 0.683 where 60
positives stand below 10. Where AP < 1, or negatives are a sample, the bound does not hold. So a nearly
empty heatmap of `specific` sets says nothing about the model (method 6; pitfall 21).
"""

from __future__ import annotations

import pandas as pd
from scipy import stats

from relation_neurons.analysis.effects import effect_cells, only_dose, paired_changes
from relation_neurons.errors import UnknownOptionError, near_matches
from relation_neurons.neurons import neuron_name
from relation_neurons.ranking.table import Ranking
from relation_neurons.version import renamed

__all__ = ["overlap_matrix", "set_intersections", "transfer_matrix"]


@renamed(score="contrast")
def overlap_matrix(
    ranking: Ranking, *, dose: int = 100, contrast: str = "background"
) -> pd.DataFrame:
    """Counts the neurons that two relations (or languages) share among their top `dose`.

    Args:
        ranking: from `rank_neurons`.
        dose: size of each top set.
        contrast: `background` by default; see the module docstring on `specific`.

    Returns:
        A row per ordered pair: relation, language, other, other_language, shared, expected (by
        chance: dose^2 / neurons), ratio, jaccard, and p_value (hypergeometric, at least as many).
        `attrs["left_out"]` names the relations without such a set, with the reason, and `attrs["shots"]`
        says whether solved examples preceded the prompts; the figure shows both.
    """
    total = len(ranking.neurons)
    sets = _top_sets(ranking, dose, contrast)
    rows = []
    for (relation, language), first in sets.items():
        for (other, other_language), second in sets.items():
            shared = len(first & second)
            expected = dose * dose / total
            rows.append(
                {
                    "relation": relation,
                    "language": language,
                    "other": other,
                    "other_language": other_language,
                    "score": contrast,
                    "dose": dose,
                    "shared": shared,
                    "expected": expected,
                    "ratio": shared / expected,
                    "jaccard": shared / len(first | second),
                    "p_value": float(stats.hypergeom.sf(shared - 1, total, dose, dose)),
                }
            )
    return _noting(pd.DataFrame(rows), ranking, contrast)


@renamed(score="contrast")
def set_intersections(
    ranking: Ranking, *, dose: int = 100, contrast: str = "background", smallest: int = 2
) -> pd.DataFrame:
    """Groups the neurons of the top sets by exactly which relations they belong to.

    Each neuron counts once, under all its relations, as in an UpSet plot. For R sets of dose d drawn
    at random from N neurons, a combination of k holds

        N (d / N)^k (1 - d / N)^(R - k)

    neurons on average.

    Args:
        ranking: from `rank_neurons`.
        dose: size of each top set.
        contrast: `background` by default; see the module docstring on `specific`.
        smallest: combinations of fewer relations are left out.

    Returns:
        A row per combination that holds any neuron, the largest first: relations (a tuple, named with
        their language where there are several), degree, shared, expected, names (of the neurons, in
        (layer, index) order), score, dose. There is no row if no neuron is in `smallest` sets.
        `attrs` is as in `overlap_matrix`.

    Raises:
        UnknownOptionError: there is no ranking of that contrast.
        DoseError: the ranking does not hold that dose.
    """
    labels = ranking.labels(contrast)
    sets = _top_sets(ranking, dose, contrast)
    share, total = dose / len(ranking.neurons), len(ranking.neurons)
    members: dict[tuple[int, int], list[str]] = {}
    for pair, neurons in sets.items():
        for neuron in neurons:
            members.setdefault(neuron, []).append(labels[pair])
    groups: dict[tuple[str, ...], list[str]] = {}
    for neuron in sorted(members):
        groups.setdefault(tuple(members[neuron]), []).append(neuron_name(*neuron))
    rows = [
        {
            "relations": relations,
            "degree": len(relations),
            "shared": len(names),
            "expected": total
            * share ** len(relations)
            * (1 - share) ** (len(sets) - len(relations)),
            "names": names,
            "score": contrast,
            "dose": dose,
        }
        for relations, names in groups.items()
        if len(relations) >= smallest
    ]
    columns = ["relations", "degree", "shared", "expected", "names", "score", "dose"]
    table = pd.DataFrame(rows, columns=columns)
    order = table.sort_values(["shared", "degree"], ascending=False, kind="stable")
    return _noting(order.reset_index(drop=True), ranking, contrast)


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


def _noting(table: pd.DataFrame, ranking: Ranking, contrast: str) -> pd.DataFrame:
    """Records in `attrs` which relations the table lacks, and whether solved examples were shown."""
    table.attrs["left_out"] = ranking.missing(contrast)
    table.attrs["shots"] = ranking.shots
    return table


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
