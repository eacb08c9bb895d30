"""Facts, templates, and the prompts made of them. Nothing here imports torch."""

from relation_neurons.relations.selection import draw_facts

__all__ = ["draw_facts"]
