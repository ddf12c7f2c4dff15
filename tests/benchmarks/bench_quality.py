"""Loss at the same file size: our encoders against llama.cpp's, preset by preset.

    python -m tests.benchmarks.bench_quality [--model FOLDER] [--text FILE] [--windows N] [--imatrix FILE]

Both files have the same types tensor by tensor, so the same size to the byte; only the encoder differs.
Perplexity and KL divergence (nats, against the original) are those of the weights, by `bitwright evaluate`.
"""

import argparse
import tempfile
from math import prod
from pathlib import Path

import numpy as np

from engine.api.jobs import QuantizeRequest
from engine.checkpoint import open_checkpoint
from engine.evaluate import evaluate_files
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.peers.ggml import ggml_encode

PRESETS = ["Q4_0", "Q4_K_M", "Q6_K", "Q8_0"]


def peer_file(model: Path, preset: str, imatrix: Path | None, path: Path) -> None:
    """The same plan, encoded by `ggml_quantize_chunk`."""
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, preset, has_importance=imatrix is not None)
        recipe = recipe.model_copy(update={"imatrix": str(imatrix) if imatrix else None})
        prepared = prepare(checkpoint, recipe)
        content = np.zeros(prepared.size, np.uint8)
        content[: len(prepared.header)] = np.frombuffer(prepared.header, np.uint8)
        for source, tensor in zip(prepared.export.tensors, prepared.plan.tensors, strict=True):
            weights = source.read(checkpoint, 0, prod(tensor.shape[:-1]))
            importance = prepared.importance.get(tensor.name)
            if tensor.format == "F32":
                data = weights.view(np.uint8)
            else:
                data = ggml_encode(weights, tensor.format, None if importance is None else importance[0])
            start = prepared.parts[0].offsets[tensor.name]
            content[start : start + tensor.bytes] = data.ravel()
    path.write_bytes(content.tobytes())


def our_file(model: Path, preset: str, imatrix: Path | None, path: Path) -> None:
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, preset, has_importance=imatrix is not None)
    recipe = recipe.model_copy(update={"imatrix": str(imatrix) if imatrix else None})
    quantize(QuantizeRequest(model=str(model), output=str(path), recipe=recipe))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=SAMPLE_MODEL)
    parser.add_argument("--text", type=Path, default=EVALUATION_TEXT)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--windows", type=int)
    options = parser.parse_args()
    print(f"{'preset':8}{'encoder':>12}{'bytes':>14}{'perplexity':>12}{'KL':>11}{'same top':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            for encoder, make in (("ours", our_file), ("llama.cpp", peer_file)):
                path = Path(folder) / f"{preset}-{encoder}.gguf"
                make(options.model, preset, options.imatrix, path)
                report = evaluate_files(path, options.text, options.model, windows=options.windows)
                print(
                    f"{preset:8}{encoder:>12}{path.stat().st_size:>14,}{report.perplexity:>12.3f}"
                    f"{report.kl_mean:>11.6f}{report.top1_agreement:>10.4f}"
                )


if __name__ == "__main__":
    main()
