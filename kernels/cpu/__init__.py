"""Numba kernels on vectors of sixteen lanes; `kernels.reference` is the oracle of each.

What is compiled is kept in the user's cache folder: see `kernels.compiled`.
"""

import numba

from kernels.compiled import folder

numba.config.CACHE_DIR = str(folder())
