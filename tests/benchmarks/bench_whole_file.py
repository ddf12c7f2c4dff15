"""A whole file: what a job takes beside its encoders' own time, and its memory; then one huge tensor.

    python -m tests.benchmarks.bench_whole_file [--blocks 10] [--threads 2] [--preset Q4_K_M] [--no-huge]

Writes a float16 Llama of half a billion parameters (random weights, repeated: see tests/large.py) and
quantizes it with both efforts, each in a process of its own whose encoders are loaded. The encoders' own time
is that of the same weights, held in memory, on as many threads. Then a GGUF with one tensor of 2 GB. Memory
is the job's peak of private memory above that of the process before it. Needs 4 GB on the disk of temporary
files (TMPDIR).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

from engine.api.formats import EFFORTS
from tests.large import large_config, write_large

HUGE = (16_384, 65_536)
"""Of float16: 2.1 GB."""

JOB = """
import json, sys, time
from engine.api.jobs import QuantizeRequest
from engine.checkpoint import open_checkpoint
from engine.jobs.limits import private_memory
from engine.methods import encode, warm_up
from engine.parallel import in_order
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset

model, output, preset, effort, threads, own = sys.argv[1:]
threads, rows = int(threads), 1024
with open_checkpoint(model) as checkpoint:
    recipe = recipe_for_preset(checkpoint, preset).model_copy(update={"effort": effort})
    prepared = prepare(checkpoint, recipe)
    warm_up({tensor.format for tensor in prepared.plan.tensors})
    before = private_memory()
    request = QuantizeRequest(model=model, output=output, recipe=recipe, threads=threads, overwrite=True)
    result = quantize(request)
    alone = 0.0
    for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
        if len(tensor.shape) < 2 or own == "0":
            continue
        weights = source.read(checkpoint, 0, tensor.shape[0], halves=True)
        pieces = [weights[start : start + rows] for start in range(0, len(weights), rows)]
        began = time.perf_counter()
        for _ in in_order(lambda piece: encode(piece, tensor.format, effort=effort), pieces, threads):
            pass
        alone += time.perf_counter() - began
print(json.dumps({
    "seconds": result.seconds, "alone": alone, "bytes": result.bytes,
    "above": result.peak_private_bytes - before,
}))
"""


def job(model: Path, output: Path, preset: str, effort: str, threads: int, *, own: bool = True) -> dict:
    """What `JOB` prints."""
    command = [
        sys.executable,
        "-c",
        JOB,
        str(model),
        str(output),
        preset,
        effort,
        str(threads),
        str(int(own)),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict = json.loads(done.stdout)
    return found


def write_huge(path: Path) -> None:
    """A GGUF of no known architecture with one matrix of `HUGE`."""
    weights = np.memmap(path.with_suffix(".weights"), np.float16, "w+", shape=HUGE)
    drawn = (np.random.default_rng(0).normal(size=(64, HUGE[1])) * 0.02).astype(np.float16)
    for start in range(0, HUGE[0], len(drawn)):
        weights[start : start + len(drawn)] = drawn
    writer = gguf.GGUFWriter(path, "huge")
    writer.add_tensor("blk.0.ffn_up.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".weights").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="A whole file: time beside the encoders' own, and memory.")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--preset", default="Q4_K_M")
    parser.add_argument("--no-huge", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, output = Path(folder) / "model", Path(folder) / "model.gguf"
        total = write_large(model, large_config(arguments.blocks), shards=2, dtype="F16")
        print(
            f"{total / 2e6:.0f} million weights in float16, {arguments.preset}, {arguments.threads} threads"
        )
        for effort in EFFORTS:
            found = job(model, output, arguments.preset, effort, arguments.threads)
            print(
                f"{effort:5} {found['seconds']:6.2f} s, its encoders alone {found['alone']:6.2f} s, "
                f"ratio {found['seconds'] / found['alone']:.3f}; "
                f"{found['above'] / 1e6:.0f} MB above what was in memory before; {found['bytes']:,} bytes",
                flush=True,
            )
        if not arguments.no_huge:
            huge = Path(folder) / "huge.gguf"
            write_huge(huge)
            found = job(huge, output, arguments.preset, "fast", arguments.threads, own=False)
            print(
                f"one tensor of {2 * HUGE[0] * HUGE[1] / 1e9:.1f} GB, fast: {found['seconds']:.2f} s, "
                f"{found['above'] / 1e6:.0f} MB above what was in memory before"
            )


if __name__ == "__main__":
    main()
