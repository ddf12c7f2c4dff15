"""`bitwright demo`: the main job on the built-in sample model, from nothing to a measured GGUF."""

from pathlib import Path

from engine import terminal
from engine.api.errors import OutputError
from engine.api.jobs import QuantizeRequest, QuantizeResult
from engine.api.report import Report
from engine.api.units import size
from engine.checkpoint import open_checkpoint
from engine.evaluate import evaluate_files
from engine.quantize import quantize
from engine.recipes import recipe_for_preset
from resources import EVALUATION_TEXT, SAMPLE_MODEL

PRESET = "Q4_K_M"


def run(folder: Path) -> None:
    """Inspect, quantize, measure and read back the sample model; the GGUF goes into `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made: {error.strerror}; name another with --out.") from None
    output = folder / f"sample-{PRESET}.gguf"
    with open_checkpoint(SAMPLE_MODEL) as checkpoint:
        model = checkpoint.summary()
        recipe = recipe_for_preset(checkpoint, PRESET)
    terminal.say("1. Inspect", style="bold")
    terminal.show_model_line(model)
    terminal.out.print()
    terminal.say(f"2. Quantize to {PRESET}, export, read back", style="bold")
    request = QuantizeRequest(model=str(SAMPLE_MODEL), output=str(output), recipe=recipe, overwrite=True)
    with terminal.progress() as listener:
        result = quantize(request, listener)
    terminal.warn(result.warnings)
    terminal.say(f"{size(result.bytes)} in {result.seconds:.1f} s, read back and verified")
    terminal.out.print()
    terminal.say("3. Measure", style="bold")
    with terminal.progress() as listener:
        report = evaluate_files(output, EVALUATION_TEXT, SAMPLE_MODEL, listener=listener)
    _show(result, report)
    terminal.say(f"Original:  {SAMPLE_MODEL}")
    terminal.say(f"Quantized: {output}")
    terminal.say(f"Text:      {EVALUATION_TEXT} ({report.tokens:,} tokens, {report.protocol} protocol)")
    terminal.say(f"By hand:   bitwright quantize {SAMPLE_MODEL} --preset {PRESET} --out {output} --overwrite")
    terminal.say("`bitwright` opens the window; `bitwright --help` lists the commands.")


def _show(result: QuantizeResult, report: Report) -> None:
    """Before and after in one table."""
    shown = terminal.table("", "size", "bpw", "perplexity", "KL divergence", "same top token")
    shown.add_row(
        "before",
        size(result.source_bytes),
        f"{result.source_bpw:.2f}",
        f"{report.reference_perplexity:.3f}",
        "0",
        "",
    )
    shown.add_row(
        "after",
        size(result.bytes),
        f"{result.bpw:.2f}",
        f"{report.perplexity:.3f}",
        f"{report.kl_mean:.5f}",
        f"{100 * (report.top1_agreement or 0):.1f} %",
    )
    terminal.out.print(shown)
