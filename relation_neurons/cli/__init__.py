"""The command line; nothing heavy is imported until a command runs."""

from relation_neurons.cli.app import app, main

__all__ = ["app", "main"]
