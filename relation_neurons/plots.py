"""Plots: tables in, plotly figures out; nothing is shown and nothing is written.

Each function names the columns it needs; the tables come from `cumulativity`, `interference`,
`versatility` and `summary`. Text from data is shown as text, never read as markup.
"""

from relation_neurons.plot_curves import dose_curve, dose_curves
from relation_neurons.plot_dots import headline, score_comparison, specificity
from relation_neurons.plot_matrices import interference, layers, overlap, transfer
from relation_neurons.plot_null import spectrum
from relation_neurons.plot_stability import stability

__all__ = [
    "dose_curve",
    "dose_curves",
    "headline",
    "interference",
    "layers",
    "overlap",
    "score_comparison",
    "specificity",
    "spectrum",
    "stability",
    "transfer",
]
