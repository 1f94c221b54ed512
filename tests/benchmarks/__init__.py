"""Measurements by hand: `python -m tests.benchmarks.NAME`. Figures and how to get them: README.md."""
