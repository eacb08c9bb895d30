"""The whole experiment: relations in, tables and a report out.

relations -> prompts -> recall -> activations -> ranking -> ablation sweep -> effects -> report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from relation_neurons.activations import collect_activations
from relation_neurons.controls import CONTROL_KINDS
from relation_neurons.errors import ResultsError, TooFewFactsError
from relation_neurons.models import HookedTransformer, neuron_count
from relation_neurons.options import Options, make_manifest, make_options
from relation_neurons.prompts import Prompts, make_prompts
from relation_neurons.ranking import (
    Ranking,
    left_out_relations,
    rank_neurons,
    resolve_doses,
)
from relation_neurons.readers import load_relations
from relation_neurons.recall import measure_recall
from relation_neurons.relations import Relation, draw_facts, drop_copied, limit_objects
from relation_neurons.report import build_report, make_figures
from relation_neurons.results import (
    Results,
    open_folder,
    read_prompts,
    write_json,
    write_prompts,
    write_text,
)
from relation_neurons.split import choose_templates, require_links
from relation_neurons.stages import Stages
from relation_neurons.summary import summarise
from relation_neurons.sweep import ablation_sweep

__all__ = [
    "ablate_stage",
    "across_languages",
    "choose_facts",
    "rank_stage",
    "read_rank_stage",
    "report_stage",
    "run",
]


def run(
    model: HookedTransformer,
    relations: Any = "demo",
    *,
    out: str | Path | None = None,
    preset: str = "default",
    say: Callable[[str], None] | None = None,
    **options: Any,
) -> Results:
    """Does all of it, from relations to the report.

    Args:
        model: what `load_model` gives.
        relations: anything that `load_relations` reads.
        out: the results folder; nothing is written without one. A folder with an unfinished run of
            the same options goes on after the files that are whole.
        preset: `default` or `paper`.
        say: told what was done, a line a stage.
        options: fields of `Options`.

    Raises:
        ResultsError: the folder holds another run.
    """
    chosen = make_options(preset, **options)
    folder = Path(out) if out is not None else None
    stages = Stages(folder, say) if say else Stages(folder)
    loaded = choose_facts(load_relations(relations), chosen)
    chosen = across_languages(chosen, loaded, stated=options)
    resolve_doses(chosen.doses, neuron_count(model, chosen.site))
    for relation in loaded:
        detect, judge = choose_templates(
            relation, chosen.hold_out_templates, chosen.single_template
        )
        if judge == detect and not chosen.single_template:
            stages.say(
                f"note: {relation.name} ({relation.language}) holds out no wording; it is judged on "
                "those it is found on"
            )
    manifest = make_manifest(model, loaded, chosen)
    if folder is not None:
        open_folder(folder, manifest)
    prompts, recall, ranking = rank_stage(model, loaded, chosen, stages)
    effects = ablate_stage(model, prompts, ranking, chosen, stages)
    return report_stage(manifest, prompts.frame, recall, ranking, effects, stages)


def choose_facts(relations: Sequence[Relation], options: Options) -> tuple[Relation, ...]:
    """Leaves out the facts that the options leave out, the same in each language of a relation.

    Raises:
        RelationFormatError: a relation in several languages whose facts are not linked.
        TooFewFactsError: nothing is left, or one relation only where the score needs two.
    """
    require_links(relations)
    chosen = list(relations)
    if options.drop_copied:
        chosen = [drop_copied(relation) for relation in chosen]
    if options.max_object_share is not None:
        share = options.max_object_share
        chosen = [limit_objects(relation, share, seed=options.seed) for relation in _common(chosen)]
    if options.max_facts is not None:
        count = options.max_facts
        chosen = [draw_facts(one, count, seed=options.seed) for one in _common(chosen)]
    if (options.drop_copied, options.max_object_share, options.max_facts) != (False, None, None):
        chosen = _common(chosen)
    alone = [one for one in chosen if sum(one.language == o.language for o in chosen) < 2]
    if options.score == "specific" and len(alone) == len(chosen):
        raise TooFewFactsError(
            "The score `specific` tells a relation from others of its language, so it takes two. Add a "
            "relation, or use the score `background` (neutral prompts)."
        )
    return tuple(chosen)


def _common(relations: Sequence[Relation]) -> list[Relation]:
    """Keeps the facts that a relation has in all its languages here."""
    keys: dict[str, set[str]] = {}
    for one in relations:
        here = {fact.key for fact in one.facts}
        keys[one.name] = keys.get(one.name, here) & here
    left = [
        replace(one, facts=tuple(fact for fact in one.facts if fact.key in keys[one.name]))
        for one in relations
        if keys[one.name]
    ]
    if len(left) < len(relations):
        gone = next(one.name for one in relations if not keys[one.name])
        raise TooFewFactsError(f"Relation {gone!r} has no fact left that is in all its languages.")
    return left


def across_languages(
    options: Options, relations: Sequence[Relation], *, stated: Mapping[str, Any]
) -> Options:
    """With several languages, also ablates the `background` sets, with a control.

    Versatility is read from them, and so is transfer; unless the checks were stated.
    """
    several = len({relation.language for relation in relations}) > 1
    if not several or stated.get("checks") is not None or options.preset == "paper":
        return options
    checks = tuple(dict.fromkeys((*options.checks, "background")))
    checks = tuple(check for check in checks if check != options.score)
    draws = options.check_draws if stated.get("check_draws") is not None else 1
    return replace(options, checks=checks, check_draws=draws)


def rank_stage(
    model: HookedTransformer, relations: Sequence[Relation], options: Options, stages: Stages
) -> tuple[Prompts, pd.DataFrame, Ranking]:
    """Prompts, recall, activations and ranking; what is there already is read."""
    prompts = stages.make(
        "prompts",
        lambda: make_prompts(
            relations,
            model.tokenizer,
            held_out=options.held_out,
            seed=options.seed,
            hold_out_templates=options.hold_out_templates,
            nonsense=options.nonsense,
            shots=options.shots,
            single_template=options.single_template,
        ),
        write_prompts,
        read_prompts,
    )
    recall = stages.make(
        "recall", lambda: measure_recall(model, prompts, batch_size=options.batch_size)
    )
    if stages.has("ranking", "neurons"):
        left_out = left_out_relations(recall, options.min_known)
        return (
            prompts,
            recall,
            Ranking(stages.read("ranking"), stages.read("neurons"), options.site, left_out),
        )
    started = time.monotonic()
    keep = resolve_doses(options.doses, neuron_count(model, options.site))[-1]
    table = collect_activations(
        model,
        prompts.detection,
        pool=options.pool,
        site=options.site,
        batch_size=options.batch_size,
    )
    ranking = rank_neurons(
        table, recall, order=options.order, min_known=options.min_known, keep=max(1000, keep)
    )
    stages.keep("neurons", ranking.neurons)
    stages.keep("ranking", ranking.frame)
    stages.done("ranking", started)
    return prompts, recall, ranking


def read_rank_stage(
    manifest: dict[str, Any], stages: Stages
) -> tuple[Options, Prompts, pd.DataFrame, Ranking]:
    """Reads what `rank_stage` left in a folder, with the options it was made with."""
    saved = dict(manifest["options"])
    for name in ("doses", "checks"):
        saved[name] = tuple(saved[name])
    try:
        options = Options(**saved, seed=manifest["seed"])
    except TypeError as error:
        raise ResultsError(
            f"The folder was made by another version of this package: {error}. Run it anew."
        ) from error
    recall = stages.read("recall")
    left_out = left_out_relations(recall, options.min_known)
    ranking = Ranking(stages.read("ranking"), stages.read("neurons"), options.site, left_out)
    return options, stages.read("prompts", read_prompts), recall, ranking


def ablate_stage(
    model: HookedTransformer, prompts: Prompts, ranking: Ranking, options: Options, stages: Stages
) -> pd.DataFrame:
    """The sweep over all doses, and the checks at the middle one."""

    def sweep() -> pd.DataFrame:
        counts = resolve_doses(options.doses, len(ranking.neurons))
        shared: dict[str, Any] = {
            "mode": options.mode,
            "positions": options.positions,
            "batch_size": options.batch_size,
            "seed": options.seed,
        }
        sets = (ranking.frame["score"] == options.score) & (ranking.frame["rank"] == 1)
        ablations = int(sets.sum()) * len(counts) * (1 + len(CONTROL_KINDS) * options.draws)
        asked = pd.MultiIndex.from_frame(prompts.held_out.frame[["relation", "language"]])
        held_out = int(asked.isin(ranking.pairs).sum())
        stages.say(f"sweep: {ablations:,} ablations and the checks, {held_out:,} prompts each")
        parts = [
            ablation_sweep(
                model,
                prompts.held_out,
                ranking,
                counts,
                scores=(options.score,),
                control_draws=options.draws,
                **shared,
            )
        ]
        checks = [s for s in options.checks if (ranking.frame["score"] == s).any()]
        if checks:
            parts.append(
                ablation_sweep(
                    model,
                    prompts.held_out,
                    ranking,
                    counts[len(counts) // 2 :][:1],
                    scores=checks,
                    control_draws=options.check_draws,
                    control_kinds=("control_contribution",),
                    **shared,
                )
            )
        effects = pd.concat(
            [part.astype(dict.fromkeys(part.select_dtypes("category"), str)) for part in parts],
            ignore_index=True,
        )
        return effects.astype(
            dict.fromkeys(
                ("ablated", "ablated_language", "kind", "score", "relation", "language"), "category"
            )
        )

    return stages.make("effects", sweep)


def report_stage(
    manifest: dict[str, Any],
    prompts: pd.DataFrame,
    recall: pd.DataFrame,
    ranking: Ranking,
    effects: pd.DataFrame,
    stages: Stages,
) -> Results:
    """Summary, figures and report; needs no model."""
    started = time.monotonic()
    summary = summarise(manifest, recall, ranking, effects)
    results = Results(manifest, prompts, recall, ranking, effects, summary, stages.folder)
    if stages.folder is not None:
        write_json(stages.folder / "summary.json", summary)
        figures = make_figures(results)
        for name, figure in figures.items():
            write_text(stages.folder / "figures" / f"{name}.json", figure.to_json())
        write_text(stages.folder / "report.html", build_report(results, figures))
        stages.done("report", started)
    return results
