"""With 48 relations, in every theme, no name in a figure stands on another or is cut."""

from __future__ import annotations

import pytest
from plotly.offline import get_plotlyjs

from helpers import fake_tables
from relation_neurons import plots

NAMES = [f"a_relation_called_{i}" for i in range(48)]
CROWDED = """() => ['ytick', 'xtick'].flatMap(axis => {
  const texts = Array.from(document.querySelectorAll('.' + axis + ' text'));
  const boxes = texts.map(text => [text.textContent, text.getBoundingClientRect()]);
  const plot = document.querySelector('.main-svg').getBoundingClientRect();
  const cut = boxes.filter(([, box]) => box.left < plot.left - 1 || box.right > plot.right + 1
    || box.bottom > plot.bottom + 1).map(([name]) => 'cut: ' + name);
  const on = boxes.slice(1).filter(([, box], i) => {
    const before = boxes[i][1];
    return before.left < box.right - 2 && box.left < before.right - 2
      && before.top < box.bottom - 2 && box.top < before.bottom - 2;
  }).map(([name]) => 'overlap: ' + name);
  return [...cut, ...on];
})"""


@pytest.fixture(scope="module")
def figures():
    return fake_tables.make_all(NAMES)


@pytest.mark.parametrize(
    "name", ["interference", "specificity", "overlap", "transfer", "layers", "scores", "headline"]
)
def test_48_names_are_legible(name, figures, browser) -> None:
    page = browser.new_page()
    page.set_content("<div id='plot'></div>")
    page.add_script_tag(content=get_plotlyjs())
    for theme in ("light", "dark", "print"):
        fig = plots.themed(figures[name], theme)
        page.evaluate(
            "async text => { const f = JSON.parse(text); await Plotly.react('plot', f.data, f.layout); }",
            fig.to_json(),
        )
        shown = page.locator(".ytick text").all_text_contents()
        assert len([text for text in shown if "a relation called" in text]) == 48, theme
        assert page.evaluate(CROWDED) == [], theme
    page.close()
