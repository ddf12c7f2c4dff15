"""How one of our processes starts another: ours, and not a namesake in the folder where the user stands."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

_RUN = (
    "import runpy, sys; sys.path[0:0] = [] if {root!r} in sys.path else [{root!r}]; "
    "runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *arguments: str) -> list[str]:
    """The command that runs the package `module` ("app", "engine") as `python -m` does.

    `python -m app` alone would run a folder `app` of the current directory, which many projects have.
    """
    code = _RUN.format(root=str(ROOT), module=module)
    return [sys.executable, "-P", "-c", code, *arguments]
