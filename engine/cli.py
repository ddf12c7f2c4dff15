"""The command line: one thin function a command, over the same functions that the window calls.

Results go to stdout, progress and warnings to stderr. The exit code is 0; 2 with one sentence for
what the user can mend; 130 when stopped. Without a command it hands over to the window.
"""

import io
import json
import os
import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from engine import __version__, terminal
from engine.activations_command import show_captured
from engine.api.errors import RecipeError, UserError
from engine.api.formats import DEFAULT_METHOD, FORMATS
from engine.api.jobs import (
    ActivationsResult,
    CalibrateResult,
    EvaluateRequest,
    EvaluateResult,
    QuantizeResult,
    Stopped,
)
from engine.api.launch import module_command
from engine.api.wording import demand
from engine.importance_commands import importance_app, show_calibrated
from engine.job_commands import jobs_app
from engine.jobs.limits import NO_MEMORY, out_of_memory
from engine.options import AsJson, JobId, MemoryLimit, Model, Threads, example
from engine.plot_command import EXAMPLES as PLOT_EXAMPLES
from engine.plot_command import plot
from engine.presets_command import EXAMPLES as PRESETS_EXAMPLES
from engine.presets_command import presets
from engine.process import keep_libraries_quiet, stop_in_order
from engine.quantize_command import EXAMPLES as QUANTIZE_EXAMPLES
from engine.quantize_command import quantize, show_quantized
from engine.stats_command import EXAMPLES as STATS_EXAMPLES
from engine.stats_command import stats

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(jobs_app, name="jobs")
app.add_typer(importance_app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bitwright {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Quantize, measure and inspect language models. Without a command: the window, `bitwright [MODEL]`."""
    if context.invoked_subcommand is None:
        open_window()


@app.command(epilog=example("bitwright inspect ./Llama-3.2-1B", "bitwright inspect model.gguf --json"))
def inspect(
    model: Model,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="The keys that a GGUF of the model has, or would have.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a model is made of, from its headers alone."""
    from engine.checkpoint import open_checkpoint

    with open_checkpoint(model) as checkpoint:
        if metadata:
            _show_metadata(checkpoint, as_json)
            return
        summary = checkpoint.summary()
    if as_json:
        print(summary.model_dump_json(indent=1))
    else:
        terminal.show_model(summary)


def _show_metadata(checkpoint: "Checkpoint", as_json: bool) -> None:
    from engine.api.metadata import entries_of
    from engine.export.gguf import plan_export

    stored = checkpoint.metadata if checkpoint.kind == "gguf" else plan_export(checkpoint).metadata
    entries = entries_of(stored)
    if as_json:
        print(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=1))
    else:
        terminal.show_metadata(entries)


app.command(epilog=PRESETS_EXAMPLES)(presets)  # here: the help lists commands in this order
app.command(epilog=STATS_EXAMPLES)(stats)
app.command(epilog=PLOT_EXAMPLES)(plot)
app.command(epilog=QUANTIZE_EXAMPLES)(quantize)


@app.command(
    epilog=example(
        "bitwright evaluate model.gguf --text wiki.test.raw --reference ./Llama-3.2-1B",
    )
)
def evaluate(
    model: Model,
    text: Annotated[Path, typer.Option(help="UTF-8 text to measure on.", show_default=False)],
    reference: Annotated[
        Path | None,
        typer.Option(help="The original: adds KL divergence and agreement.", show_default=False),
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="How windows are cut and scored: llama.cpp or gptq.")
    ] = "llama.cpp",
    windows: Annotated[
        int | None, typer.Option(min=1, help="Measure on the first N windows only.", show_default=False)
    ] = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show memory, disk and time alone.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure perplexity and, against a reference, KL divergence and agreement, as a job to be resumed."""
    from engine.estimate import refuse_needs
    from engine.evaluate import evaluate as run
    from engine.evaluate import foresee

    request = EvaluateRequest(
        model=str(model),
        text=str(text),
        reference=None if reference is None else str(reference),
        protocol=protocol,
        windows=windows,
        threads=threads,
        memory_limit=memory_limit,
    )
    if dry_run:
        needed = foresee(request)
        if as_json:
            print(json.dumps({"needs": needed.model_dump(mode="json")}, indent=1))
        else:
            terminal.show_needs(needed)
        refuse_needs(needed)
        return
    with terminal.progress() as listener:
        result = run(request, listener)
    _show_evaluated(result, as_json)


def _show_evaluated(result: EvaluateResult, as_json: bool) -> None:
    terminal.warn(result.warnings)
    if as_json:
        print(json.dumps(result.report.model_dump(mode="json") | result.model_dump(exclude={"report"})))
    else:
        terminal.show_report(result.report)


@app.command("warm-up", epilog=example("bitwright warm-up", "bitwright warm-up Q4_K Q6_K"))
def warm_up(
    formats: Annotated[
        list[str] | None, typer.Argument(help="Formats; all by default.", show_default=False)
    ] = None,
) -> None:
    """Compile the encoders ahead, as the first use of each would on this machine."""
    from engine.formats import refuse_pair
    from engine.methods import warm_up as run
    from kernels.compiled import is_lasting

    names = [name.upper() for name in formats or FORMATS]
    for name in names:
        reason = refuse_pair(DEFAULT_METHOD, name)
        if reason is not None:
            raise RecipeError(reason)
    began = time.monotonic()
    with terminal.progress() as listener:
        run(names, listener)
    terminal.say(f"The encoders are ready, after {time.monotonic() - began:.0f} s.")
    if not is_lasting():
        terminal.warn(["their cache cannot be written, so every run will compile them again"])


@app.command(epilog=example("bitwright demo", "bitwright demo --out ./somewhere"))
def demo(
    out: Annotated[Path, typer.Option(help="The folder to write into.")] = Path("bitwright-demo"),
) -> None:
    """Run the whole job on the built-in sample model: inspect, quantize, measure, export, read back."""
    from engine.demo import run

    run(out)


@app.command(
    epilog=example(
        "bitwright resume 20261123-101500-3fa2", "bitwright resume 20261123-101500-3fa2 --memory-limit 4GB"
    )
)
def resume(
    job: JobId,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin it again from nothing, as a new job.")
    ] = False,
    memory_limit: MemoryLimit = None,
    as_json: AsJson = False,
) -> None:
    """Go on with an interrupted job behind what is finished of it."""
    from engine.resume import resume as run

    with terminal.progress() as listener:
        result = run(job, listener, restart=restart, memory_limit=memory_limit)
    match result:
        case QuantizeResult():
            show_quantized(result, as_json)
        case EvaluateResult():
            _show_evaluated(result, as_json)
        case CalibrateResult():
            show_calibrated(result, as_json)
        case ActivationsResult():
            show_captured(result, as_json)


def _model_alone(arguments: list[str]) -> str | None:
    """The model of `bitwright MODEL`, which the window is to open. None where the words are a command's."""
    first = arguments[0] if arguments else "-"
    if first.startswith("-") or first in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        return None
    if not os.path.lexists(first):
        raise UserError(f"{first} is neither a command nor a model's folder or file; see `bitwright --help`.")
    if len(arguments) > 1:
        raise UserError(f"The window opens one model; what is {arguments[1]} for? See `bitwright --help`.")
    return first


def open_window(*model: str) -> None:
    """Hand over to the window; does not return. Raises `UserError` where it is not installed."""
    if find_spec("PySide6") is None:
        raise UserError(
            "The window needs PySide6, which is missing: install Bitwright again with its dependencies. "
            "`bitwright --help` lists the commands, which work without it."
        )
    command = module_command("app", *model)
    if os.name == "posix":
        os.execv(command[0], command)
    sys.exit(subprocess.run(command, check=False).returncode)


def main() -> None:
    """The `bitwright` command."""
    stop_in_order()
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show × still gets its table
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    keep_libraries_quiet()
    try:
        if (model := _model_alone(sys.argv[1:])) is not None:
            open_window(model)
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        terminal.complain(" ".join([f"error: {error}", *getattr(error, "__notes__", [])]))
        sys.exit(2)
    except TyperException as error:
        terminal.complain(f"error: {_usage(error)}")
        sys.exit(2)
    except Stopped as stopped:
        terminal.complain(f"Stopped. What is finished is kept: bitwright resume {stopped.job}")
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if not out_of_memory(error):
            raise
        terminal.complain(f"error: {NO_MEMORY}")
        sys.exit(2)


def _usage(error: TyperException) -> str:
    """A mistake in the words of the command, in one line."""
    context = getattr(error, "ctx", None)
    command = f" See {context.command_path} --help." if context else ""
    said = " ".join(error.format_message().split()).rstrip(".")
    found = re.fullmatch(r"Invalid value for '(\S+)': (.*)", said)
    if found and (needed := demand(found[2])):
        said = f"{found[1]} {needed}"
    return f"{said}.{command}"


if __name__ == "__main__":
    main()
