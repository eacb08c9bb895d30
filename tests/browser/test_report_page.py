"""The report in a real browser: it draws, loads nothing, keeps text as text, and fits the screen."""

from __future__ import annotations

import pytest

from helpers.fake_results import EVIL, NAMES, make_results
from helpers.paths import ROOT
from relation_neurons.report.page import build_report
from relation_neurons.results.results import load_results

REFERENCE = ROOT / "results" / "reference"
DESKTOP, PHONE, PAPER = ({"width": wide, "height": 900} for wide in (1280, 390, 700))
PATIENCE = 240_000  # milliseconds: the machine may be busy
LARGEST = 8e6

DRAWN = """() => Array.from(document.querySelectorAll('.plot')).map(plot => ({
  name: plot.id, width: plot.getBoundingClientRect().width,
  marks: plot.querySelectorAll('.scatterlayer .trace, .heatmaplayer .hm, .barlayer .trace').length}))"""
OUTSIDE = """() => Array.from(document.querySelectorAll('body *')).filter(one => {
  const apart = '.scroll, .box, nav, pre, script, style, noscript, #js-plotly-tester';
  if (one.closest(apart) || one.hidden) return false;
  const box = one.getBoundingClientRect();
  return box.width && box.height && (box.right > innerWidth + 1 || box.left < -1);
}).map(one => one.tagName + ' ' + one.className + ' ' + one.textContent.slice(0, 40))"""
CUT = """() => Array.from(document.querySelectorAll('.plot .main-svg text')).filter(text => {
  const own = text.getBoundingClientRect(), plot = text.closest('.plot').getBoundingClientRect();
  return own.width && (own.left < plot.left - 2 || own.right > plot.right + 2
    || own.top < plot.top - 2 || own.bottom > plot.bottom + 2);
}).map(text => text.closest('.plot').id + ': ' + text.textContent)"""
OVERLAPPING = """() => Array.from(document.querySelectorAll('.plot')).flatMap(plot => {
  const texts = Array.from(plot.querySelectorAll('.ytick text, .g-ytitle text, .infolayer .cbtitle text'))
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  return texts.flatMap(([a, p], i) => texts.slice(i + 1).filter(([b, q]) =>
    p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1)
    .map(([b]) => plot.id + ': ' + a + ' / ' + b));
})"""


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """Opens a page and collects what it says, asks for, and asks the reader."""
    contexts = []

    def open_page(text: str, **options):
        path = tmp_path_factory.mktemp("report") / "report.html"
        path.write_text(text, encoding="utf-8")
        assert path.stat().st_size < LARGEST
        context = browser.new_context(viewport=DESKTOP, **options)
        contexts.append(context)
        page, heard = context.new_page(), []
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (heard.append("dialog"), dialog.dismiss()))
        page.on("request", lambda request: heard.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        local = (f"request: {path.as_uri()}", "request: data:", "request: blob:")
        return page, lambda: [one for one in heard if not one.startswith(local)]

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def text() -> str:
    return build_report(make_results(NAMES[-4:]))


@pytest.fixture(scope="module")
def report(text, opened):
    return opened(text)


@pytest.fixture(scope="module")
def reference(opened):
    return opened(build_report(load_results(REFERENCE)))


@pytest.mark.parametrize("which", ["report", "reference"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_figure_draws_and_nothing_is_cut_or_loaded(which, size, request) -> None:
    page, heard = request.getfixturevalue(which)
    page.set_viewport_size(size)
    page.wait_for_timeout(1500)  # the figures draw themselves anew
    drawn = page.evaluate(DRAWN)
    assert len(drawn) == page.locator("script[data-plot]").count() >= 9
    assert not [one for one in drawn if not one["marks"] or one["width"] < 200]
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(CUT) == []
    assert page.evaluate(OVERLAPPING) == []
    assert heard() == []


def test_search_and_sort_of_neurons(report) -> None:
    page, heard = report
    page.set_viewport_size(DESKTOP)
    rows = page.locator("#top tbody tr:not(.card):visible")
    everything = rows.count()
    page.get_by_label("Search neurons").fill("WORD opposite")
    assert rows.count() == 50 < everything
    assert page.locator("[data-table=top] [role=status]").inner_text() == "50 neurons"
    page.get_by_label("Search neurons").fill("word opposite nothing-like-it")
    assert rows.count() == 0
    page.get_by_label("Search neurons").fill("")
    for column, name in ((4, "AP"), (1, "Rank"), (3, "Layer")):
        head = page.locator("#top thead th").nth(column)
        for order in ("ascending", "descending"):
            head.get_by_role("button").click()
            assert head.get_attribute("aria-sort") == order
            values = [float(row.split("\t")[column]) for row in rows.all_inner_texts()]
            assert values == sorted(values, reverse=order == "descending"), name
    assert page.locator("#top th[aria-sort]").count() == 1 and heard() == []


def test_a_card_opens_by_keyboard_and_stays_with_its_row(report) -> None:
    page, heard = report
    page.set_viewport_size(DESKTOP)
    name = page.locator("#top button[aria-expanded]").nth(3)
    card = page.locator(f"#{name.get_attribute('aria-controls')}")
    assert card.is_hidden()
    name.focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-expanded") == "true" and card.is_visible()
    assert name.inner_text().strip() in card.inner_text()
    page.locator("#top thead button").nth(3).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    above = card.evaluate("card => card.previousElementSibling.querySelector('button').textContent")
    assert above == name.text_content() and card.is_visible()
    name.focus()
    page.keyboard.press("Space")
    assert card.is_hidden() and heard() == []


def test_facts_and_changed_answers_are_searched_and_filtered(report) -> None:
    page, heard = report
    page.set_viewport_size(DESKTOP)
    flips = page.locator("#flips tbody tr:visible")
    everything = flips.count()
    page.get_by_role("combobox", name="Judged").select_option("home")
    home = flips.count()
    assert 0 < home < everything
    page.get_by_label("Search answers").fill("lost word opposite")
    kept = flips.all_inner_texts()
    assert 0 < len(kept) < home
    assert all("lost" in row and "word opposite" in row for row in kept)
    facts = page.locator("#all-facts tbody tr:visible")
    page.get_by_label("Search facts").fill("")
    page.get_by_label("Side").select_option("held_out")
    sides = {row.split("\t")[3] for row in facts.all_inner_texts()}
    assert sides == {"held out"}
    margin = page.locator("#flips thead th").nth(8)
    margin.get_by_role("button").click()
    values = [row.split("\t")[8] for row in flips.all_inner_texts()]
    numbers = [float(value.replace("\N{MINUS SIGN}", "-")) for value in values]
    assert numbers == sorted(numbers) and heard() == []


def test_a_hostile_subject_stays_text(report) -> None:
    page, heard = report
    page.get_by_label("Side").select_option("")
    page.get_by_label("Search facts").fill("")
    page.get_by_label("Search answers").fill("")
    subjects = [row.split("\t")[1] for row in page.locator("#all-facts tbody tr").all_inner_texts()]
    assert EVIL in subjects
    assert page.get_by_text(f"The answer for {EVIL} is", exact=True).count() > 0
    assert page.locator("td b, td script, td i, caption b").count() == 0
    page.get_by_label("Search facts").fill("<script>alert(1)")
    assert page.locator("#all-facts tbody tr:visible").count() == subjects.count(EVIL)
    assert heard() == []


@pytest.mark.parametrize("width", [PHONE["width"], DESKTOP["width"]])
def test_the_keyboard_reaches_search_and_every_scrolled_box(report, width) -> None:
    page, _ = report
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_timeout(500)
    unreachable = page.evaluate(
        """() => Array.from(document.querySelectorAll('.box, .scroll')).filter(box =>
          box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0).length"""
    )
    assert unreachable == 0
    assert page.locator("nav a").first.evaluate("link => link.tabIndex") == 0
    page.locator("nav a").last.focus()
    page.keyboard.press("Enter")
    page.wait_for_timeout(200)
    assert page.locator("#manifest h2").bounding_box()["y"] < 900


def test_printed_it_shows_whole_tables_within_the_page(report) -> None:
    page, _ = report
    page.set_viewport_size(PAPER)
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.wait_for_timeout(300)
    assert page.locator("nav").is_hidden() and page.locator(".tools").first.is_hidden()
    assert page.locator(".box").first.evaluate("box => getComputedStyle(box).maxHeight") == "none"
    wide = page.evaluate(
        "() => Array.from(document.querySelectorAll('.plot svg')).map(s => s.getBoundingClientRect().right)"
    )
    page.emulate_media(media="screen")
    assert max(wide) <= PAPER["width"] + 1


def test_without_scripts_the_words_and_the_tables_are_there(text, opened) -> None:
    page, heard = opened(text, java_script_enabled=False)
    assert page.locator("#answer .answer").is_visible()
    for table in ("top", "flips", "all-facts"):
        assert page.locator(f"#{table} tbody th").first.is_visible()
    assert "<noscript><p><strong>The figures need JavaScript" in text and heard() == []
