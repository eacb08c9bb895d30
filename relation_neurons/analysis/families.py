"""What a matrix of tested cells claims, by family, and what it cannot claim with the draws it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from relation_neurons.analysis.cell_tests import LARGEST_OVERLAP
from relation_neurons.analysis.draw_tests import ALPHA

__all__ = ["claim_families", "claim_sentences"]


def claim_families(matrix: pd.DataFrame) -> pd.DataFrame:
    """Counts the claims of each family of cells, and says how small a p-value its draws can reach.

    Args:
        matrix: from `interference_matrix`.

    Returns:
        A row per family (`home`, `away`) that has cells: cells, tested (cells with a p-value),
        fewest_draws and most_draws (random sets that were read), draw_overlap (the largest), inflation
        (the largest), least_p (the smallest p_draws that the most draws can show), draws_needed (how
        many more draws would make the answer of every cell clear; 0 where they are), unclear (cells whose
        answer takes more), harmed and improved (significant cells, by sign), and open (cells away from
        home whose q-value is low, which is no claim as no harm at home is shown).
    """
    rows = []
    for name in ("home", "away"):
        cells = matrix[matrix["family"] == name]
        if cells.empty:
            continue
        tested = cells[cells["p_value"].notna()]
        sure = cells[cells["significant"]]
        below = (cells["q_value"] <= ALPHA) & (cells["draws_needed"] == 0)
        rows.append(
            {
                "family": name,
                "cells": len(cells),
                "tested": len(tested),
                "fewest_draws": int(cells["draws"].min()),
                "most_draws": int(cells["draws"].max()),
                "draw_overlap": float(cells["draw_overlap"].max()),
                "inflation": float(cells["inflation"].max()),
                "least_p": float(cells["least_p"].min()),
                "draws_needed": int(cells["draws_needed"].max()),
                "unclear": int((cells["draws_needed"] > 0).sum()),
                "harmed": int((sure["difference"] < 0).sum()),
                "improved": int((sure["difference"] > 0).sum()),
                "open": int((below & ~cells["significant"]).sum()) if name == "away" else 0,
            }
        )
    return pd.DataFrame(rows)


def claim_sentences(families: pd.DataFrame) -> dict[str, str]:
    """Says in a sentence for each family what is claimed, or why nothing can be.

    Args:
        families: from `claim_families`.

    Returns:
        Sentences, by family.
    """
    return {row["family"]: _sentence(row) for row in families.to_dict("records")}


def _sentence(row: dict[str, Any]) -> str:
    where = "At home" if row["family"] == "home" else "Away from home"
    if row["tested"] == 0:
        return f"{where} nothing is tested: {_why_untested(row)}."
    sets = _counted(row["fewest_draws"], row["most_draws"])
    option = "home_draws" if row["family"] == "home" else "judged_draws"
    more = f"that takes {row['draws_needed']:,} more ({option})"
    if row["unclear"] == row["tested"]:
        return f"{where} no cell can be significant with {sets}: {more}."
    if row["unclear"] and not row["harmed"] and not row["improved"]:
        count = "1 is" if row["unclear"] == 1 else f"{row['unclear']} are"
        return f"{where} no cell is significant with {sets}, and {count} open: {more}."
    if row["family"] == "home":
        verb = "shows" if row["harmed"] == 1 else "show"
        rest = f"; {row['unclear']} more open: {more}" if row["unclear"] else ""
        return (
            f"At home {row['harmed']} of {row['cells']} cells {verb} harm, by rank among {sets} "
            f"(false-discovery rate 5%{rest})."
        )
    if row["open"]:
        return "Away from home nothing is claimed, as no harm at home is shown."
    return (
        f"Away from home {row['harmed']} of {row['cells']} cells show harm and {row['improved']} "
        f"improvement, by rank among {sets} (all cells together at 5%)."
    )


def _why_untested(row: dict[str, Any]) -> str:
    overlap = row["draw_overlap"]
    if np.isfinite(overlap) and overlap > LARGEST_OVERLAP:
        return (
            f"the random sets have {overlap:.0%} of their neurons in common, more than "
            f"{LARGEST_OVERLAP:.0%}, so they can hardly differ"
        )
    return "there are no random sets to compare with"


def _counted(fewest: int, most: int) -> str:
    if fewest == most:
        return f"{most:,} random set{'' if most == 1 else 's'}"
    return f"{fewest:,} to {most:,} random sets"
