"""Our packages are run, not namesakes in the folder where the user stands."""

import subprocess

from engine import __version__
from engine.api.launch import module_command


def test_a_namesake_in_the_current_folder_is_not_run(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    (tmp_path / "engine" / "__main__.py").write_text("print('the namesake')")
    done = subprocess.run(
        module_command("engine", "--version"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"bitwright {__version__}\n", "")
