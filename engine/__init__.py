"""Bitwright's engine: opens, quantizes, measures and exports language models. Headless; no Qt."""
