"""Speed and squared error of our encoders beside llama.cpp's, on the same arrays and as many threads.

    python -m tests.benchmarks.bench_encoders [--million-weights 4] [--threads 1] [--formats Q4_K Q6_K]

For each format, without importance and with: million weights a second of both efforts and of the peer, their
ratio, and our squared error divided by the peer's (below 1 ours is better); with importance, where ours
stores blocks longer on purpose, the weighted error that each would have if scaled for the least of it. Runs
take turns, the median of five is shown, so that a machine that is busy with other things disturbs all alike.
Everything is compiled, and the peer's tables are made, before the clock starts. Importance is log-normal.
Where ggml refuses to encode without importance it is given ones.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import gguf
import numpy as np

from engine.api.formats import EFFORTS, FORMATS
from engine.methods import encode, warm_up
from engine.parallel import in_order
from tests.kernels.losses import lost_at_any_scale, squared_error
from tests.peers.ggml import ggml_encode

ENCODED = [name for name, info in FORMATS.items() if not info.exact]
NEEDS_IMPORTANCE = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS")
SLOW = ("IQ1", "IQ2", "IQ3", "IQ4")
"""Formats of which the peer encodes a few million weights a second: they are given an eighth of them."""
COLUMNS = 4096
REPEATS = 5

Encoder = Callable[[np.ndarray], np.ndarray]


def lost(data: np.ndarray, name: str, weights: np.ndarray, matters: np.ndarray | None) -> float:
    kind = gguf.GGMLQuantizationType[name]
    measure = squared_error if matters is None else lost_at_any_scale
    values = gguf.quants.dequantize(data, kind)
    return float(measure(values, weights, matters, gguf.GGML_QUANT_SIZES[kind][0]).sum())


def encoders(name: str, matters: np.ndarray | None) -> dict[str, Encoder]:
    given = matters
    if matters is None and name in NEEDS_IMPORTANCE:
        given = np.ones(COLUMNS, np.float32)

    def ours(effort: str) -> Encoder:
        return lambda rows: encode(rows, name, "search", matters, effort)

    return {
        "ggml": lambda rows: ggml_encode(rows, name, given),
        **{effort: ours(effort) for effort in EFFORTS},
    }


def measure(
    name: str, weights: np.ndarray, matters: np.ndarray | None, threads: int
) -> dict[str, tuple[float, float]]:
    """Million weights a second, and what is lost, of each encoder."""
    parts = np.array_split(weights, threads)
    found = encoders(name, matters)
    seconds: dict[str, list[float]] = {label: [] for label in found}
    errors = {}
    for label, run in found.items():
        errors[label] = lost(run(weights), name, weights, matters)
    for _ in range(REPEATS):
        for label, run in found.items():
            start = perf_counter()
            for _ in in_order(run, parts, threads):
                pass
            seconds[label].append(perf_counter() - start)
    return {label: (weights.size / median(seconds[label]) / 1e6, errors[label]) for label in found}


def columns(found: dict[str, tuple[float, float]]) -> str:
    peer_speed, peer_error = found["ggml"]
    texts = [f"{peer_speed:8.1f}"]
    for effort in EFFORTS:
        speed, error = found[effort]
        texts.append(f"{speed:8.1f} x{speed / peer_speed:5.1f} {error / peer_error:7.4f}")
    return "".join(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Encoders beside llama.cpp's: speed and squared error.")
    parser.add_argument("--million-weights", type=float, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", nargs="+", default=ENCODED, choices=ENCODED)
    arguments = parser.parse_args()
    rows = max(8, int(arguments.million_weights * 1e6 / COLUMNS))
    rng = np.random.default_rng(0)
    weights = (rng.normal(size=(rows, COLUMNS)) * 0.02).astype(np.float32)
    importance = rng.lognormal(0, 1, COLUMNS).astype(np.float32)
    warm_up(arguments.formats)
    print(f"Gaussian weights, {rows} x {COLUMNS} (IQ: an eighth), threads: {arguments.threads}")
    print(
        f"Million weights a second, medians of {REPEATS}; x: times ggml's; error: our squared error by ggml's"
    )
    both = "    ggml" + "".join(f"{effort:>8}      x   error" for effort in EFFORTS)
    print(
        f"\n{'':8}{'default path':>{len(both)}}  {'with importance':>{len(both)}}\n{'format':8}{both}  {both}"
    )
    for name in arguments.formats:
        part = weights[: rows // 8] if name.startswith(SLOW) else weights
        plain = columns(measure(name, part, None, arguments.threads))
        print(f"{name:8}{plain}  {columns(measure(name, part, importance, arguments.threads))}", flush=True)


if __name__ == "__main__":
    main()
