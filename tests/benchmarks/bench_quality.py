"""Loss at the same file size: our encoders against llama.cpp's, preset by preset.

    python -m tests.benchmarks.bench_quality [--presets all | P ...] [--judge llama.cpp] [--imatrix FILE]
        [--model FOLDER] [--text FILE] [--windows N]

Both files have the same types tensor by tensor, so the same size to the byte; only the encoder differs.
Perplexity and KL divergence (nats, against the original) are those of the weights, by `bitwright evaluate`,
or those of llama.cpp's own logits, which rounds activations to 8 bits, too. The last column is our KL
divergence over the peer's.
"""

import argparse
import tempfile
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.api.jobs import QuantizeRequest
from engine.api.presets import PRESETS
from engine.checkpoint import open_checkpoint
from engine.evaluate import evaluate_files
from engine.preparation import prepare
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from resources import EVALUATION_TEXT, SAMPLE_MODEL
from tests.peers.ggml import ggml_encode
from tests.peers.llama import scored_windows

USUAL = ["Q4_0", "Q4_K_M", "Q6_K", "Q8_0"]
LEFT_OUT = {"F32", "F16", "BF16", "MXFP4_MOE"}
"""Nothing to search, or no experts to search it for."""


class Figures(NamedTuple):
    """`kl` in nats, `same_top` the share of positions with the same likeliest token."""

    perplexity: float
    kl: float
    same_top: float


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


def weights_alone(path: Path, text: Path, model: Path, windows: int | None) -> Figures:
    """Of the exact dequantized forward pass."""
    report = evaluate_files(path, text, model, windows=windows)
    assert report.kl_mean is not None, "there is a reference"
    assert report.top1_agreement is not None, "there is a reference"
    return Figures(report.perplexity, report.kl_mean, report.top1_agreement)


def in_llama_cpp(path: Path, text: Path, reference: Path, windows: int | None) -> Figures:
    """Of llama.cpp's own logits for the file, against those for `reference` (F32)."""
    losses, divergence, same = [], [], []
    said = text.read_text(encoding="utf-8")
    pairs = zip(scored_windows(path, said, windows), scored_windows(reference, said, windows), strict=True)
    for (rows, targets), (true, _) in pairs:
        losses.append(-rows[np.arange(len(targets)), targets].astype(np.float64))
        divergence.append((np.exp(true) * (true - rows)).sum(axis=1, dtype=np.float64))
        same.append(rows.argmax(axis=1) == true.argmax(axis=1))
    means = [float(np.concatenate(values).mean()) for values in (losses, divergence, same)]
    return Figures(float(np.exp(means[0])), means[1], means[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=SAMPLE_MODEL)
    parser.add_argument("--text", type=Path, default=EVALUATION_TEXT)
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--presets", nargs="+", default=USUAL, help="or: all")
    parser.add_argument("--judge", choices=["weights", "llama.cpp"], default="weights")
    options = parser.parse_args()
    presets = [p for p in PRESETS if p not in LEFT_OUT] if options.presets == ["all"] else options.presets
    print(f"{'preset':8}{'encoder':>12}{'bytes':>14}{'perplexity':>12}{'KL':>11}{'same top':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "f32.gguf"
        our_file(options.model, "F32", None, reference)
        for preset in presets:
            kl = []
            for encoder, make in (("ours", our_file), ("llama.cpp", peer_file)):
                path = Path(folder) / f"{preset}-{encoder}.gguf"
                make(options.model, preset, options.imatrix, path)
                if options.judge == "weights":
                    found = weights_alone(path, options.text, options.model, options.windows)
                else:
                    found = in_llama_cpp(path, options.text, reference, options.windows)
                kl.append(found.kl)
                ratio = f"{kl[0] / kl[1]:8.3f}" if len(kl) == 2 and kl[1] else ""
                print(
                    f"{preset:8}{encoder:>12}{path.stat().st_size:>14,}{found.perplexity:>12.3f}"
                    f"{found.kl:>11.6f}{found.same_top:>10.4f}{ratio}",
                    flush=True,
                )
                path.unlink()


if __name__ == "__main__":
    main()
