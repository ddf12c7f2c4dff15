"""Speed and squared error of our encoders beside llama.cpp's, on the same arrays, one thread each.

    python -m tests.benchmarks.bench_encoders [--million-weights 4] [--formats Q4_K Q6_K]

Runs are interleaved and the median of five is shown, so that a machine that is busy with other things
disturbs all alike. Errors are ours divided by llama.cpp's without importance and with (all 1): below 1
ours is better. The first use on a machine compiles for some 10 s before it starts.
"""

import argparse
from statistics import median
from time import perf_counter

import gguf
import numba
import numpy as np

from engine.methods import encode, warm_up
from tests.peers.ggml import ggml_encode

FORMATS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]
COLUMNS = 4096
REPEATS = 5


def squared_error(data: np.ndarray, name: str, weights: np.ndarray) -> float:
    decoded = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    return float(((decoded.astype(np.float64) - weights) ** 2).sum())


def measure(name: str, weights: np.ndarray) -> dict[str, tuple[float, float]]:
    """Million weights a second, and squared error, of each encoder."""
    uniform = np.ones(weights.shape[1], np.float32)
    encoders = {
        "rtn": lambda: encode(weights, name, "rtn"),
        "search": lambda: encode(weights, name, "search"),
        "ggml": lambda: ggml_encode(weights, name),
        "ggml, importance": lambda: ggml_encode(weights, name, uniform),
    }
    seconds: dict[str, list[float]] = {label: [] for label in encoders}
    errors = {}
    for _ in range(REPEATS):
        for label, run in encoders.items():
            start = perf_counter()
            data = run()
            seconds[label].append(perf_counter() - start)
            errors[label] = squared_error(data, name, weights)
    return {label: (weights.size / median(seconds[label]) / 1e6, errors[label]) for label in encoders}


def main() -> None:
    parser = argparse.ArgumentParser(description="Encoders beside llama.cpp's: speed and squared error.")
    parser.add_argument("--million-weights", type=float, default=4)
    parser.add_argument("--formats", nargs="+", default=FORMATS, choices=FORMATS)
    arguments = parser.parse_args()
    rows = max(1, int(arguments.million_weights * 1e6 / COLUMNS))
    weights = (np.random.default_rng(0).normal(size=(rows, COLUMNS)) * 0.02).astype(np.float32)
    warm_up(arguments.formats)
    numba.set_num_threads(1)
    print(f"Gaussian weights, {rows} x {COLUMNS}, one thread each, median of {REPEATS}\n")
    print("          million weights a second               squared error")
    print("format    rtn  search    ggml  ggml, imp.    rtn/ggml  search/ggml  search/ggml, imp.")
    for name in arguments.formats:
        found = measure(name, weights)
        speeds = {label: speed for label, (speed, _) in found.items()}
        errors = {label: error for label, (_, error) in found.items()}
        print(
            f"{name:6}{speeds['rtn']:7.0f}{speeds['search']:8.0f}{speeds['ggml']:8.0f}"
            f"{speeds['ggml, importance']:12.0f}{errors['rtn'] / errors['ggml']:12.4f}"
            f"{errors['search'] / errors['ggml']:13.4f}{errors['search'] / errors['ggml, importance']:19.4f}"
        )


if __name__ == "__main__":
    main()
