"""How long the first picture of a tensor's histogram takes: `python -m tests.benchmarks.bench_figures`.

A matrix of 100 million weights (--million-weights for others), stored as BF16 and as F32, in a process that
has drawn a small one before, as the window's engine has. Cold: nothing is known of it, and the system has not
its file in memory; then from its cached statistics. Beside it until the exact picture, and the whole matrix
as a picture. Exits with 1 where the first picture is later than 1.5 s cold or 150 ms cached.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from engine.api.views import HistogramOf, PictureOf, View
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.figures import figures

LIMITS = {"cold": 1.5, "cached": 0.15}
COLUMNS = 8192
SMALL, LARGE = "model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight"


def write_model(folder: Path, weights: int, dtype: torch.dtype) -> Path:
    """A lone file with a large matrix and a small one."""
    generator = np.random.default_rng(0)
    rows = weights // COLUMNS
    large = torch.empty(rows, COLUMNS, dtype=dtype)
    for start in range(0, rows, 256):
        part = generator.standard_normal((min(256, rows - start), COLUMNS), np.float32)
        large[start : start + 256] = torch.from_numpy(part * 0.02)
    path = folder / f"{str(dtype).removeprefix('torch.')}.safetensors"
    save_file({LARGE: large, SMALL: torch.ones(8, 8, dtype=dtype)}, path, metadata={"format": "pt"})
    return path


def forget(path: Path) -> None:
    """Let the system drop what it holds of the file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(checkpoint: Checkpoint, view: View) -> tuple[float, float]:
    """Seconds to the first picture, and to the last one."""
    start = time.perf_counter()
    times = [time.perf_counter() - start for _ in figures(checkpoint, view)]
    return times[0], times[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description="How long the first picture takes.")
    parser.add_argument("--million-weights", type=int, default=100)
    weights = parser.parse_args().million_weights * 1_000_000
    late = False
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = str(Path(name) / "cache")
        for dtype in (torch.bfloat16, torch.float32):
            path = write_model(Path(name), weights, dtype)
            with open_checkpoint(path) as checkpoint:
                timed(checkpoint, HistogramOf(tensor=SMALL))
                for state, limit in LIMITS.items():
                    if state == "cold":
                        forget(path)
                    first, last = timed(checkpoint, HistogramOf(tensor=LARGE))
                    late |= first > limit
                    said = f"first picture {first:.3f} s (limit {limit} s), exact {last:.3f} s"
                    print(f"histogram, {path.stem}, {state}: {said}")
                first, last = timed(checkpoint, PictureOf(tensor=LARGE))
                print(f"picture, {path.stem}: first {first:.3f} s, whole {last:.3f} s")
            path.unlink()
    return int(late)


if __name__ == "__main__":
    sys.exit(main())
