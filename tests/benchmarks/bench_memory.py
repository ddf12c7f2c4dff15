"""The peak of memory of quantizing a checkpoint that is far larger than its limit.

    python -m tests.benchmarks.bench_memory [--gigabytes 6] [--limit 2GB] [--preset Q4_K_M] [--windows N]

Writes a bfloat16 Llama of the shapes of an 8B model (random weights, some megabytes of them repeated: see
tests/large.py), quantizes it by `bitwright quantize --memory-limit`, and samples the command's RssAnon from
outside every 10 ms. With `--windows` the loss is measured, too. Exits with 1 if the limit was passed. Needs
half as much again on the disk of temporary files (TMPDIR).
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine.api.units import duration, parse_size, size
from resources import EVALUATION_TEXT
from tests.large import large_config, write_large

BLOCK_BYTES = 436_224_000
ENDS_BYTES = 524_288_000


def config_of(total: float) -> dict:
    """A model of about `total` bytes."""
    return large_config(
        blocks=max(1, round((total - ENDS_BYTES) / BLOCK_BYTES)),
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=14_336,
        head_dim=128,
    )


def run(command: list[str]) -> tuple[int, int, str]:
    """Exit code, highest RssAnon in bytes, stdout."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, private_memory_of(process.pid))
            time.sleep(0.01)
        assert process.stdout is not None
        return process.returncode, peak, process.stdout.read()


def private_memory_of(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))


def main() -> int:
    parser = argparse.ArgumentParser(description="The peak of memory under a limit.")
    parser.add_argument("--gigabytes", type=float, default=6)
    parser.add_argument("--limit", type=parse_size, default=parse_size("2GB"))
    parser.add_argument("--preset", default="Q4_K_M")
    parser.add_argument("--windows", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model, output = Path(name) / "model", Path(name) / "out.gguf"
        free = shutil.disk_usage(name).free
        if free < 1.5e9 * options.gigabytes:
            print(f"{name} has {size(free)} free: too little")
            return 2
        written = write_large(model, config_of(1e9 * options.gigabytes), shards=4)
        command = [sys.executable, "-m", "engine.cli", "quantize", str(model), "--preset", options.preset]
        command += ["--out", str(output), "--memory-limit", str(options.limit), "--json"]
        if options.windows:
            command += ["--measure", str(EVALUATION_TEXT), "--windows", str(options.windows)]
        began = time.monotonic()
        code, peak, out = run(command)
        if code:
            return code
        result = json.loads(out)
        made = size(result["bytes"])
        print(f"{size(written)} of weights, {options.preset}: {made}, limit {size(options.limit)}")
        print(
            f"peak of RssAnon: {size(peak)} seen from outside, "
            f"{size(result['peak_private_bytes'])} by the job"
        )
        print(f"time: {duration(time.monotonic() - began)}")
    return int(peak > options.limit)


if __name__ == "__main__":
    sys.exit(main())
