"""The one plan of a run: the doses, ablated sets and blocks that its options imply.

The stages of a run compute what the plan says, and verification checks that the tables hold just that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from relation_neurons.ablation.collateral import largest_dose
from relation_neurons.ablation.sets import Condition, draw_controls, plan_sweep
from relation_neurons.analysis.draw_tests import ALPHA, least_p
from relation_neurons.analysis.interference import home_cells
from relation_neurons.neurons import resolve_doses
from relation_neurons.ranking.criteria import applicable_contrasts, applicable_tasks
from relation_neurons.ranking.detection_tasks import (
    CONTRASTS,
    KNOWN_CONTRASTS,
    DetectionTask,
    detection_tasks,
)
from relation_neurons.ranking.table import Ranking
from relation_neurons.results.options import Options

__all__ = ["MOST_HOME_DRAWS", "AblationPlan", "Plan", "next_draws"]

MOST_HOME_DRAWS = 999
"""Most draws of a cell at home, where no other number is asked for."""

_CONTROL = ("control_contribution",)
_LEAST_KEPT = 1000
_FEWEST_AT_ONCE = 20
_LEAST_DEALT = 100
"""The dose of `overlap_matrix` unless another is given."""


@dataclass(frozen=True)
class Plan:
    """What the options of a run imply for a model with so many neurons at the site.

    Raises:
        DoseError: a dose above the number of neurons.
    """

    options: Options
    neurons: int

    def __post_init__(self) -> None:
        """Resolves the doses, so that one that the model cannot have is refused at once."""
        _ = self.doses

    @cached_property
    def doses(self) -> tuple[int, ...]:
        """The doses of the sweep as counts, increasing."""
        return resolve_doses(self.options.doses, self.neurons)

    @property
    def middle_dose(self) -> int:
        """The dose that is judged unless a budget for collateral damage chooses another."""
        return self.doses[len(self.doses) // 2]

    @property
    def kept(self) -> int:
        """Ranked neurons that are kept per task: enough for every dose and for the blocks, and 1,000."""
        wanted = max(_LEAST_KEPT, self.doses[-1], self.options.blocks * self.middle_dose)
        return min(wanted, self.neurons)

    @property
    def dealt(self) -> int:
        """Neurons that are kept of each dealt set: enough for every dose, and for 100."""
        return min(max(_LEAST_DEALT, self.doses[-1]), self.neurons)

    def ranked_tasks(self, prompts: pd.DataFrame, recall: pd.DataFrame) -> list[DetectionTask]:
        """Lists the detection tasks of the table `ranking`.

        Args:
            prompts: the run's detection prompts.
            recall: of the prompts of both sides.
        """
        tasks = detection_tasks(prompts, recall, min_known=self.options.min_known)
        by = self.options.by
        return applicable_tasks(by, tasks, applicable_contrasts(by, CONTRASTS))

    @property
    def evidence(self) -> tuple[str, ...]:
        """The tables made beside the ranking that say how far to trust it: `null`, `stability`, `overlap`.

        All are about average precision, so a ranking by another criterion has none.
        """
        if self.options.by != "average_precision":
            return ()
        counts = {
            "null": self.options.permutations,
            "stability": self.options.repeats,
            "overlap": self.options.overlap_deals,
        }
        return tuple(name for name, count in counts.items() if count)

    def evidence_tasks(self, prompts: pd.DataFrame, recall: pd.DataFrame) -> list[DetectionTask]:
        """Lists the detection tasks of the tables in `evidence`."""
        return detection_tasks(
            prompts, recall, contrasts=KNOWN_CONTRASTS, min_known=self.options.min_known
        )

    def judged_dose(self, collateral: pd.DataFrame) -> int:
        """Returns the middle dose, or the largest whose collateral damage stays in `max_collateral`.

        Raises:
            DoseError: no dose stays within it.
        """
        if self.options.max_collateral is None:
            return self.middle_dose
        return largest_dose(collateral, float(self.options.max_collateral))

    def collateral_sets(self, ranking: Ranking) -> list[Condition]:
        """Lists the sets under which neutral text is read: the sweep's, with one control draw each."""
        return plan_sweep(
            ranking,
            self.doses,
            contrasts=(self.options.contrast,),
            control_draws=1,
            control_kinds=_CONTROL,
            seed=self.options.seed,
        )

    def ablations(self, ranking: Ranking, collateral: pd.DataFrame) -> AblationPlan:
        """Plans the sweep and the blocks, once the ranking and the collateral damage are known.

        Raises:
            DoseError: no dose stays within the budget for collateral damage.
        """
        return AblationPlan(self, ranking, self.judged_dose(collateral))


@dataclass(frozen=True, eq=False)
class AblationPlan:
    """The ablated sets of a run at its doses, each drawn once."""

    plan: Plan
    ranking: Ranking
    dose: int
    """The judged dose, at which the report compares the sets."""

    @cached_property
    def sweep(self) -> list[Condition]:
        """The contrast's sets at every dose with their controls, of which the judged dose has more."""
        options = self.plan.options
        judged = max(options.draws, options.judged_draws) if options.draws else 0
        return plan_sweep(
            self.ranking,
            self.plan.doses,
            contrasts=(options.contrast,),
            control_draws={
                "control_contribution": options.draws,
                "control_layer": options.layer_draws,
            },
            draws_at={self.dose: judged},
            seed=options.seed,
        )

    @cached_property
    def checks(self) -> list[Condition]:
        """The sets of the other rankings in `checks` that exist, at the judged dose."""
        options, ranked = self.plan.options, set(self.ranking.frame["score"])
        return plan_sweep(
            self.ranking,
            (self.dose,),
            contrasts=[contrast for contrast in options.checks if contrast in ranked],
            control_draws=options.check_draws,
            control_kinds=_CONTROL,
            seed=options.seed,
        )

    @property
    def effects(self) -> list[Condition]:
        """Every ablated set of the table `effects`."""
        return [*self.sweep, *self.checks]

    @property
    def draws_at_home(self) -> bool:
        """Whether draws go on at home beyond those that are judged on all prompts: the table `home_draws`."""
        return self.plan.options.home_draws != 0 and self.plan.options.draws > 0

    def next_home_draws(
        self, effects: pd.DataFrame, home_draws: pd.DataFrame | None
    ) -> list[Condition]:
        """Lists the next draws to judge on their relation's own facts; none where every answer is clear.

        Args:
            effects: the table, whose cells say which relations are drawn for.
            home_draws: the draws that were judged at home so far.
        """
        options = self.plan.options
        if not self.draws_at_home:
            return []
        asked: dict[str, Any] = {"dose": self.dose, "contrast": options.contrast}
        home = home_cells(effects, home_draws, seed=options.seed, **asked)
        ranked = {
            (one.ablated, one.language): one
            for one in self.sweep
            if one.kind == "ranked" and one.dose == self.dose
        }
        planned: list[Condition] = []
        counts = next_draws(home, most=options.home_draws) if len(home) else []
        for (pair, cell), count in zip(home.iterrows(), counts, strict=True):
            start = int(cell["draws"])
            planned += draw_controls(
                ranked[pair], self.ranking, range(start, start + count), seed=options.seed
            )
        return planned

    @property
    def block_count(self) -> int:
        """How many disjoint blocks of the judged dose are ablated: none, or two and more."""
        count = min(self.plan.options.blocks, int(self.ranking.frame["rank"].max()) // self.dose)
        return count if count > 1 else 0

    @cached_property
    def joint_blocks(self) -> list[Condition]:
        """The sets that hold all blocks of a ranking or of its control at once."""
        if not self.block_count:
            return []
        options = self.plan.options
        return plan_sweep(
            self.ranking,
            (self.dose * self.block_count,),
            contrasts=(options.contrast,),
            control_draws=min(options.draws, 1),
            control_kinds=_CONTROL,
            seed=options.seed,
        )


def next_draws(home: pd.DataFrame, *, most: int | None = None) -> list[int]:
    """Returns how many further draws each cell at home is judged under next, 0 where it is clear.

    Rounds grow, as the cells are tested anew after each. Without a stated `most` it is `MOST_HOME_DRAWS`, and
    nothing is drawn where not even those could make all cells significant whose facts show harm.

    Args:
        home: cells at home, from `judge_home`.
        most: draws of a cell.
    """
    limit = MOST_HOME_DRAWS if most is None else most
    tested, hopeful = home["p_value"].notna().sum(), (home["p_sign_flip"] <= ALPHA).sum()
    counts = []
    for start, needed, factor in zip(
        home["draws"].tolist(),
        home["draws_needed"].tolist(),
        home["inflation"].tolist(),
        strict=True,
    ):
        reached = least_p(min(start + needed, limit), factor=factor) * tested
        if most is None and start + needed > limit and reached > ALPHA * hopeful:
            needed = 0
        counts.append(max(min(needed, max(_FEWEST_AT_ONCE, start // 2), limit - start), 0))
    return counts
