"""The commands about jobs that exist: `bitwright jobs`, `jobs clean`, `jobs remove`."""

import json
from typing import Annotated

import typer

from engine import terminal
from engine.api.errors import JobError
from engine.options import AsJson, JobId, example

jobs_app = typer.Typer()


@jobs_app.callback(invoke_without_command=True, epilog=example("bitwright jobs", "bitwright jobs --json"))
def jobs(context: typer.Context, as_json: AsJson = False) -> None:
    """List the jobs, newest last; remove them."""
    from engine.jobs.folder import list_jobs

    if context.invoked_subcommand is not None:
        return
    found = list_jobs()
    if as_json:
        print(json.dumps([job.model_dump(mode="json") for job in found], indent=1))
    elif not found:
        terminal.say("No jobs yet.")
    else:
        terminal.show_jobs(found)


@jobs_app.command(epilog=example("bitwright jobs clean", "bitwright jobs clean --unfinished"))
def clean(
    unfinished: Annotated[
        bool,
        typer.Option("--unfinished", help="Also interrupted and failed ones, with what they have written."),
    ] = False,
) -> None:
    """Remove the jobs that are over: finished, replaced and unreadable ones. Outputs stay."""
    from engine.jobs.cleaning import clean_jobs

    count = len(clean_jobs(unfinished=unfinished))
    terminal.say("1 job removed." if count == 1 else f"{count} jobs removed.")


@jobs_app.command(epilog=example("bitwright jobs remove 20261123-101500-3fa2"))
def remove(job: JobId) -> None:
    """Remove one job; of an unfinished one also what it has written. A finished output stays."""
    from engine.jobs.cleaning import remove_jobs
    from engine.jobs.folder import Job

    found = Job.find(job)
    if not remove_jobs([found.id]):
        raise JobError(f"Job {found.id} is running; stop it first.")
    terminal.say(f"Job {found.id} removed.")
