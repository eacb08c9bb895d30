"""Benchmarks: ratios of things that are run side by side, in one process.

Each module gives `rows(size)`, with size `small` (seconds, on a planted model: to see that it works) or
`full`; `run.py` writes them all to RESULTS.md.
"""
