"""Hostile files: what makes them, and what no reader may do with one. `python -m tests.fuzz` looks for it."""

from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
"""By reader, the files that tests read and the fuzzer begins with."""
