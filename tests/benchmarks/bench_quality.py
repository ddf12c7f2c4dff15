"""Loss at the same file size: our encoders against llama.cpp's, preset by preset.

    python -m tests.benchmarks.bench_quality [--presets all | P ...] [--judge llama.cpp] [--imatrix FILE]
        [--effort fast] [--model FOLDER] [--text FILE ...] [--windows N]

Both files have the same types tensor by tensor, so the same size to the byte; only the encoder differs.
Perplexity and KL divergence (nats, against the original) are those of the weights, by `bitwright evaluate`,
or those of llama.cpp's own logits, which rounds activations to 8 bits, too, on N windows of each text. The
last column is our KL divergence over the peer's; by llama.cpp with the standard error of that ratio, from
pairs of windows.
"""

import argparse
import tempfile
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.api.formats import DEFAULT_EFFORT, EFFORTS
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
    """`kl` in nats, `by_window`: of each; `same_top`: share of positions with the same likeliest token."""

    perplexity: float
    kl: float
    same_top: float
    by_window: list[float]


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
                data = ggml_encode(
                    weights, tensor.format, None if importance is None else importance.means_of(0)
                )
            start = prepared.parts[0].offsets[tensor.name]
            content[start : start + tensor.bytes] = data.ravel()
    path.write_bytes(content.tobytes())


def our_file(
    model: Path, preset: str, imatrix: Path | None, path: Path, effort: str = DEFAULT_EFFORT
) -> None:
    with open_checkpoint(model) as checkpoint:
        recipe = recipe_for_preset(checkpoint, preset, has_importance=imatrix is not None)
    recipe = recipe.model_copy(update={"imatrix": str(imatrix) if imatrix else None, "effort": effort})
    quantize(QuantizeRequest(model=str(model), output=str(path), recipe=recipe))


def weights_alone(path: Path, text: Path, model: Path, windows: int | None) -> Figures:
    """Of the exact dequantized forward pass."""
    report = evaluate_files(path, text, model, windows=windows)
    assert report.kl_mean is not None, "there is a reference"
    assert report.top1_agreement is not None, "there is a reference"
    return Figures(report.perplexity, report.kl_mean, report.top1_agreement, [])


def of_llama_cpp(
    path: Path, texts: list[Path], windows: int | None
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Log-probabilities and targets of each window of each text, see `scored_windows`."""
    for text in texts:
        yield from scored_windows(path, text.read_text(encoding="utf-8"), windows)


def in_llama_cpp(path: Path, texts: list[Path], reference: list[np.ndarray], windows: int | None) -> Figures:
    """Of llama.cpp's own logits for the file, against the `reference` (F32): log-probabilities by window."""
    losses, divergence, same = [], [], []
    for (rows, targets), true in zip(of_llama_cpp(path, texts, windows), reference, strict=True):
        losses.append(-rows[np.arange(len(targets)), targets].astype(np.float64))
        divergence.append((np.exp(true) * (true - rows)).sum(axis=1, dtype=np.float64))
        same.append(rows.argmax(axis=1) == true.argmax(axis=1))
    means = [float(np.concatenate(values).mean()) for values in (losses, divergence, same)]
    return Figures(
        float(np.exp(means[0])), means[1], means[2], [float(window.mean()) for window in divergence]
    )


def compared(ours: Figures, peer: Figures) -> str:
    """Our KL divergence over the peer's, with its standard error where windows are known."""
    ratio = ours.kl / peer.kl
    if not ours.by_window:
        return f"{ratio:8.3f}"
    off = np.array(ours.by_window) - ratio * np.array(peer.by_window)
    return f"{ratio:8.3f} ± {off.std(ddof=1) / np.sqrt(len(off)) / peer.kl:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=SAMPLE_MODEL)
    parser.add_argument("--text", type=Path, nargs="+", default=[EVALUATION_TEXT])
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--presets", nargs="+", default=USUAL, help="or: all")
    parser.add_argument("--judge", choices=["weights", "llama.cpp"], default="weights")
    parser.add_argument("--effort", choices=list(EFFORTS), default=DEFAULT_EFFORT)
    options = parser.parse_args()
    if options.judge == "weights" and len(options.text) > 1:
        parser.error("several texts are for --judge llama.cpp")
    presets = [p for p in PRESETS if p not in LEFT_OUT] if options.presets == ["all"] else options.presets
    print(f"{'preset':8}{'encoder':>12}{'bytes':>14}{'perplexity':>12}{'KL':>11}{'same top':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        whole, reference = Path(folder) / "f32.gguf", []
        our_file(options.model, "F32", None, whole)
        if options.judge == "llama.cpp":
            reference = [rows for rows, _ in of_llama_cpp(whole, options.text, options.windows)]
        for preset in presets:
            figures: list[Figures] = []
            for encoder in ("ours", "llama.cpp"):
                path = Path(folder) / f"{preset}-{encoder}.gguf"
                if encoder == "ours":
                    our_file(options.model, preset, options.imatrix, path, options.effort)
                else:
                    peer_file(options.model, preset, options.imatrix, path)
                if options.judge == "weights":
                    found = weights_alone(path, options.text[0], options.model, options.windows)
                else:
                    found = in_llama_cpp(path, options.text, reference, options.windows)
                figures.append(found)
                ratio = compared(*figures) if len(figures) == 2 else ""
                print(
                    f"{preset:8}{encoder:>12}{path.stat().st_size:>14,}{found.perplexity:>12.3f}"
                    f"{found.kl:>11.6f}{found.same_top:>10.4f}{ratio}",
                    flush=True,
                )
                path.unlink()


if __name__ == "__main__":
    main()
