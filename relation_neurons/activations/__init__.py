"""One pooled activation per prompt and neuron."""

from relation_neurons.activations.pooling import pool

__all__ = ["pool"]
