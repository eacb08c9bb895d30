"""Plots: tables in, plotly figures out; nothing is shown, and nothing is written but by `save`.

Each function names the columns it needs; the tables come from `cumulativity`, `interference`,
`versatility`, `flips`, `neuron_values`, `comparison` and `summary`. Text from data is shown as text,
never read as markup. `themed` sets a figure dark or for print.
"""

__all__ = []
