"""Parallel Numba kernels; `kernels.reference` is the oracle of each."""
