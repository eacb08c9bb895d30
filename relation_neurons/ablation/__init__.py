"""Ablate sets of neurons, and measure the effect."""
