"""Plots: tables in, Plotly figures out; nothing is shown, and only `save` and `save_all` write files.

Each function names the columns it needs; the tables come from `analysis`, `ranking`, `activations` and
`Comparison`. Text from data is shown as text, never read as markup. `themed` returns a figure for a dark
page or for print.
"""

from relation_neurons.plots.curves import dose_curve, dose_curves
from relation_neurons.plots.dots import headline, score_comparison, specificity, standings
from relation_neurons.plots.export import save, save_all
from relation_neurons.plots.flip_table import flips
from relation_neurons.plots.matrices import interference, transfer
from relation_neurons.plots.neurons import activations, layers
from relation_neurons.plots.overlap_heatmap import intersections, overlap
from relation_neurons.plots.reliability import spectrum, stability
from relation_neurons.plots.style import TEMPLATES, themed

__all__ = [
    "TEMPLATES",
    "activations",
    "dose_curve",
    "dose_curves",
    "flips",
    "headline",
    "interference",
    "intersections",
    "layers",
    "overlap",
    "save",
    "save_all",
    "score_comparison",
    "specificity",
    "spectrum",
    "stability",
    "standings",
    "themed",
    "transfer",
]
