"""One pooled activation per prompt and neuron."""
