"""How fast statistics of weights are gathered, beside how fast this machine copies the same bytes.

    python -m tests.benchmarks.bench_statistics [--million-weights 100] [--threads 2]

For F32, F16 and BF16, on all threads: the bytes of weights that lie in memory swept in a second, those copied
in a second (read once and written once, counted once), and the ratio; then the same from a file that the
system holds in memory. Runs take turns, the median of seven is shown, so that a machine that is busy with
other things disturbs all alike. Everything is compiled before the clock starts.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from engine import statistics_cache
from engine.checkpoint import open_checkpoint
from engine.matrices import PIECE
from engine.parallel import in_order
from engine.weight_statistics import CHUNK, gather
from kernels.statistics import Sweep, frame_of

COLUMNS = 4096
REPEATS = 7
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def seconds_of(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(REPEATS):
        for name, work in works.items():
            began = perf_counter()
            work()
            taken[name].append(perf_counter() - began)
    return {name: median(found) for name, found in taken.items()}


def sweep_chunk(weights: np.ndarray) -> None:
    sweep = Sweep(COLUMNS, frame_of(weights[:8]))
    step = PIECE // COLUMNS
    for start in range(0, len(weights), step):
        assert sweep.add(weights[start : start + step])
    sweep.swept()


def measure(name: str, rows: int, threads: int, folder: Path) -> str:
    weights = torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.02
    tensor = weights.to(DTYPES[name])
    path = folder / f"{name}.safetensors"
    save_file({"weight": tensor}, path)
    stored = tensor.view(torch.uint16).numpy() if name == "BF16" else tensor.numpy()
    target = np.empty_like(stored)
    chunks = [slice(start, start + CHUNK // COLUMNS) for start in range(0, rows, CHUNK // COLUMNS)]

    def on_all(work: Callable[[slice], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in in_order(work, chunks, threads):
                pass

        return run

    with open_checkpoint(path) as checkpoint, patch.object(statistics_cache, "load", return_value=None):
        found = seconds_of(
            {
                "copy": on_all(lambda chunk: np.copyto(target[chunk], stored[chunk])),
                "sweep": on_all(lambda chunk: sweep_chunk(stored[chunk])),
                "gather": lambda: print(end="" if gather(checkpoint, "weight", threads=threads) else "?"),
            }
        )
    speeds = {what: stored.nbytes / taken / 1e9 for what, taken in found.items()}
    shown = f"{name:6}{speeds['copy']:10.2f}"
    for what in ("sweep", "gather"):
        each = found[what] * threads / stored.size * 1e9
        shown += f"{speeds[what]:12.2f}{each:10.2f}{speeds[what] / speeds['copy']:8.2f}"
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description="Statistics of weights beside copying them.")
    parser.add_argument("--million-weights", type=float, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    rows = max(8, int(arguments.million_weights * 1e6 / COLUMNS))
    print(f"Gaussian weights, {rows} x {COLUMNS}, threads: {arguments.threads}; medians of {REPEATS}")
    print("GB/s of weights; ns: of one thread for a weight; ratio: to copying\n")
    head = "".join(f"{what:>12}{'ns':>10}{'ratio':>8}" for what in ("in memory", "in a file"))
    print(f"{'type':6}{'copy':>10}{head}")
    with tempfile.TemporaryDirectory() as folder:
        for name in DTYPES:
            print(measure(name, rows, arguments.threads, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
