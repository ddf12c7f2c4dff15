"""Weights that encoders meet, and weights that nobody should give them."""

import numpy as np


def ordinary(rows: int, columns: int) -> dict[str, np.ndarray]:
    """Float32 [rows, columns] of three distributions, of the size that model weights have."""
    rng = np.random.default_rng(20261)
    shape = (rows, columns)
    arrays = {
        "gaussian": rng.normal(size=shape),
        "laplace": rng.laplace(size=shape),
        "heavy-tailed": rng.standard_t(3, size=shape),
    }
    return {name: (array * 0.02).astype(np.float32) for name, array in arrays.items()}


def hostile(rows: int, columns: int) -> dict[str, np.ndarray]:
    """Float32 [rows, columns], finite all, that break careless encoders."""
    rng = np.random.default_rng(20262)
    noise = rng.normal(size=(rows, columns)).astype(np.float32)
    one_outlier = noise * np.float32(1e-3)
    one_outlier[rows // 2, columns // 3] = 30
    some_zero_groups = noise.copy()
    some_zero_groups[:, :48] = 0
    lonely = np.zeros_like(noise)
    lonely[:, 5] = -0.5
    return {
        "zeros": np.zeros_like(noise),
        "constant": np.full_like(noise, 0.3),
        "constant negative": np.full_like(noise, -7.5),
        "one outlier": one_outlier,
        "one weight a row": lonely,
        "some groups zero": some_zero_groups,
        "denormal": noise * np.float32(1e-39),
        "below F16": noise * np.float32(1e-9),
        "scales that F16 holds roughly": noise * np.float32(1e-6),
        "near the end of F16": noise * np.float32(30000),
        "scales beyond F16": noise * np.float32(1e9),
        "near the end of F32": np.sign(noise) * np.float32(3e38),
        "negative only": -np.abs(noise) - np.float32(0.1),
        "positive only": np.abs(noise) + np.float32(5),
        "steps": np.floor(noise * 4).astype(np.float32),
    }


def importance(columns: int) -> np.ndarray:
    """Importances of columns as a calibration gives them: some matter hundreds of times more than others."""
    return np.random.default_rng(20263).lognormal(0, 1.5, columns).astype(np.float32)
