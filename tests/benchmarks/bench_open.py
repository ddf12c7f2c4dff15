"""How long opening a model of 70 billion parameters takes: `python -m tests.benchmarks.bench_open`.

The files have the sizes of real ones but are sparse: they take no room, and nothing of their data is read.
Exits with 1 if the slowest of the runs takes half a second or more.
"""

import sys
import tempfile
import time
from pathlib import Path

from engine.checkpoint import open_checkpoint
from tests.engine.checkpoint.samples import write_large_folder, write_large_gguf

RUNS = 5
LIMIT = 0.5


def main() -> int:
    slowest = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {
            "safetensors, 30 shards": write_large_folder(folder / "hf"),
            "GGUF, 128,256 tokens": write_large_gguf(folder / "large.gguf"),
        }
        for label, path in sources.items():
            times = []
            for _ in range(RUNS):
                start = time.perf_counter()
                with open_checkpoint(path) as checkpoint:
                    summary = checkpoint.summary()
                times.append(time.perf_counter() - start)
            slowest = max(slowest, *times)
            size = f"{summary.parameters / 1e9:.1f} billion parameters, {len(summary.tensors)} tensors"
            span = f"{min(times):.3f} to {max(times):.3f} s"
            print(f"{label}: {size}, {checkpoint.bytes_read:,} bytes read, {span}")
    print(f"slowest {slowest:.3f} s, limit {LIMIT} s")
    return int(slowest >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
