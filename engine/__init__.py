"""Bitwright's engine: opens, quantizes, measures and exports language models. Headless; no Qt."""

__version__ = "0.1.0"
