"""Parallel Numba kernels; `kernels.reference` is the oracle of each.

Numba runs them on its "workqueue", whose threads sleep between launches. OpenMP's spin: with two threads
on a machine that others use too, encoders ran at half the speed of one thread.
"""

import numba

numba.config.THREADING_LAYER = "workqueue"
