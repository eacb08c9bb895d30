"""What a figure or a page says of the cells that it shows: what is claimed, or why nothing can be."""

from __future__ import annotations

from typing import Any

import pandas as pd

from relation_neurons.analysis.cell_tests import LARGEST_OVERLAP

__all__ = ["claim_sentences"]


def claim_sentences(families: pd.DataFrame) -> dict[str, str]:
    """Says in a sentence for each family what is claimed, or why nothing can be.

    Args:
        families: from `claim_families`.

    Returns:
        Sentences, by family.
    """
    said = {}
    for row in families.to_dict("records"):
        sentence, untested = _sentence(row), row["cells"] - row["tested"]
        if row["tested"] and untested:
            sentence += f" {untested} of {row['cells']} are not tested: {_why_untested(row)}."
        said[row["family"]] = sentence
    return said


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
            f"At home {row['harmed']} of {row['tested']} cells {verb} harm, by rank among {sets} "
            f"(false-discovery rate 5%{rest})."
        )
    if row["open"]:
        return "Away from home nothing is claimed, as no harm at home is shown."
    return (
        f"Away from home {row['harmed']} of {row['tested']} cells show harm and {row['improved']} "
        f"improvement, by rank among {sets} (all cells together at 5%)."
    )


def _why_untested(row: dict[str, Any]) -> str:
    overlap = row["draw_overlap"]
    if pd.notna(overlap) and overlap > LARGEST_OVERLAP:
        return (
            f"the random sets have {overlap:.0%} of their neurons in common, more than "
            f"{LARGEST_OVERLAP:.0%}, so they can hardly differ"
        )
    return "there are no random sets to compare with"


def _counted(fewest: int, most: int) -> str:
    if fewest == most:
        return f"{most:,} random set{'' if most == 1 else 's'}"
    return f"{fewest:,} to {most:,} random sets"
