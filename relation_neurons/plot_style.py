"""Plot style: everything that a figure is drawn with, in one place for the figures to import.

plot_theme       palette, template, themes, title and sizes
plot_text        names, numbers, and what a table must hold
plot_dot_chart   a row of dots per name
plot_heat_chart  a text in each cell
"""

from relation_neurons.plot_dot_chart import Style, dot_plot
from relation_neurons.plot_heat_chart import heat_plot
from relation_neurons.plot_text import (
    LONGEST,
    UNITS,
    interval,
    label,
    left_out_line,
    named,
    number,
    require,
    shots_line,
    tick_size,
)
from relation_neurons.plot_theme import (
    BLUE,
    DIVERGING,
    FAINT,
    GREEN,
    GREY,
    INK,
    LIGHT,
    MISSING,
    PAPER,
    PURPLE,
    RED,
    REVERSED,
    SEQUENTIAL,
    SOFT,
    TEMPLATE,
    TEMPLATES,
    finish,
    themed,
)

__all__ = [
    "BLUE",
    "DIVERGING",
    "FAINT",
    "GREEN",
    "GREY",
    "INK",
    "LIGHT",
    "LONGEST",
    "MISSING",
    "PAPER",
    "PURPLE",
    "RED",
    "REVERSED",
    "SEQUENTIAL",
    "SOFT",
    "TEMPLATE",
    "TEMPLATES",
    "UNITS",
    "Style",
    "dot_plot",
    "finish",
    "heat_plot",
    "interval",
    "label",
    "left_out_line",
    "named",
    "number",
    "require",
    "shots_line",
    "themed",
    "tick_size",
]
