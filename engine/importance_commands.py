"""The commands about importance matrices: `bitwright calibrate`, `bitwright imatrix`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from engine import terminal
from engine.api.errors import CalibrationError, OutputError
from engine.api.jobs import CalibrateRequest, CalibrateResult
from engine.api.units import size
from engine.options import AsJson, MemoryLimit, Model, Threads, example

importance_app = typer.Typer()

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]


@importance_app.command(
    epilog=example(
        "bitwright calibrate ./Llama-3.2-1B --calibration texts.txt --out llama.imatrix.gguf",
        "bitwright calibrate ./Llama-3.2-1B --calibration ./texts --windows 200 --out llama.dat",
    )
)
def calibrate(
    model: Model,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            help="A text (.txt, .md, .jsonl), or a folder of them; more than once for more. "
            "By default the sample text.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The file to write: GGUF, or llama.cpp's older format (.dat).", show_default=False),
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="At most N windows, shared among the texts.", show_default=False),
    ] = None,
    length: Annotated[int, typer.Option(min=8, help="Tokens of a window.")] = 512,
    output_tensor: Annotated[
        bool, typer.Option("--output-tensor", help="Of the output matrix, too.")
    ] = False,
    merge: Annotated[
        list[Path] | None,
        typer.Option(help="An importance matrix to add; more than once for more.", show_default=False),
    ] = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show windows, memory, disk and time; write nothing.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Gather an importance matrix: how much each input column matters on a text, as a job to be resumed."""
    from engine.calibrate import calibrate as run

    if out is None and not dry_run:
        raise CalibrationError("Name the file to write with --out, or add --dry-run to see what it takes.")
    request = CalibrateRequest(
        model=str(model),
        texts=[str(text) for text in calibration or []],
        output=str(out or "imatrix.gguf"),
        windows=windows,
        length=length,
        output_tensor=output_tensor,
        merge=[str(matrix) for matrix in merge or []],
        threads=threads,
        memory_limit=memory_limit,
        overwrite=overwrite,
    )
    if dry_run:
        _show_dry_run(request, as_json, place=out is not None)
        return
    with terminal.progress() as listener:
        result = run(request, listener)
    show_calibrated(result, as_json)


def _show_dry_run(request: CalibrateRequest, as_json: bool, *, place: bool) -> None:
    from engine.calibrate import foresee
    from engine.estimate import refuse_needs

    found = foresee(request, place=place)
    terminal.warn(found.warnings)
    if as_json:
        shown = {
            "windows": found.windows,
            "length": found.length,
            "tensors": found.tensors,
            "needs": found.needs.model_dump(mode="json"),
            "warnings": found.warnings,
        }
        print(json.dumps(shown, indent=1))
    else:
        tokens = f"{found.windows * found.length:,} tokens"
        terminal.say(f"{found.windows:,} windows of {found.length:,} tokens ({tokens})")
        terminal.say(f"{len(found.tensors)} tensors: {found.tensors[0]} … {found.tensors[-1]}")
        terminal.show_needs(found.needs)
    refuse_needs(found.needs)


def show_calibrated(result: CalibrateResult, as_json: bool) -> None:
    """What a calibrate job has written."""
    terminal.warn(result.warnings)
    if as_json:
        print(result.model_dump_json())
        return
    terminal.say(
        f"{result.output}: {size(result.bytes)}, the importance of {result.tensors} tensors from "
        f"{result.tokens:,} tokens, {result.seconds:.1f} s, "
        f"peak memory {size(result.peak_private_bytes)}. Read back and verified."
    )


@importance_app.command(
    epilog=example(
        "bitwright imatrix llama.imatrix.gguf --model ./Llama-3.2-1B",
        "bitwright imatrix english.gguf code.dat --merge-to both.gguf",
    )
)
def imatrix(
    files: Annotated[
        list[Path], typer.Argument(help="Importance matrices, GGUF or .dat.", show_default=False)
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="A model to hold them against: what fits, what is missing.", show_default=False),
    ] = None,
    merge_to: Annotated[
        Path | None,
        typer.Option(
            help="Write all of them as one: GGUF, or .dat by its name, which keeps one text's name only.",
            show_default=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table of tensors as CSV.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Show statistics of importance matrices and experts without tokens; merge and convert them."""
    from engine.calibration.importance_files import losses, write_importance
    from engine.imatrix import read_all, summary
    from engine.jobs.errors import explained
    from engine.jobs.partial import check_place

    if merge_to is not None and csv is not None and merge_to.absolute() == csv.absolute():
        raise OutputError(f"{csv}: --merge-to and --csv name the same file; give them different names.")
    for output in (merge_to, csv):
        if output is not None:
            check_place(output, files, overwrite)
    found = read_all(files)
    shown = summary(found, files, model)
    if merge_to is not None:
        write_importance(merge_to, found, overwrite=overwrite)
        shown.warnings.extend(losses(merge_to, found))
    if csv is not None:
        with explained(csv):
            csv.write_text(shown.to_csv(), encoding="utf-8")
    terminal.warn(shown.warnings)
    if as_json:
        print(shown.model_dump_json(indent=1))
        return
    if merge_to is None or model is not None:
        terminal.show_importance(shown)
    if merge_to is not None:
        what = f"{len(shown.tensors)} tensors, {shown.windows:,} windows of {shown.window} tokens"
        terminal.say(f"{merge_to}: {what}. Written, read back and verified.")
