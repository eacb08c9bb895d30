"""The command line; nothing heavy is imported until a command runs."""

from relation_neurons.cli.app import main

__all__ = ["main"]
