"""LM Studio's folders, in a home of our own."""

import pytest

from engine.api.errors import OutputError
from engine.api.lm_studio import lm_studio_path, models_folder


def test_the_layout(tmp_path):
    (tmp_path / ".lmstudio").mkdir()
    path = lm_studio_path("me", "Llama 3.2 1B/..", "Q4_K_M", tmp_path)
    models = tmp_path / ".lmstudio" / "models"
    assert path == models / "me" / "Llama-3.2-1B-GGUF" / "Llama-3.2-1B-Q4_K_M.gguf"


def test_older_and_moved_folders(tmp_path):
    (tmp_path / ".cache" / "lm-studio").mkdir(parents=True)
    assert models_folder(tmp_path) == tmp_path / ".cache" / "lm-studio" / "models"
    (tmp_path / "else").mkdir()
    (tmp_path / ".lmstudio-home-pointer").write_text(f"{tmp_path / 'else'}\n")
    assert models_folder(tmp_path) == tmp_path / "else" / "models"


def test_a_machine_without_it(tmp_path):
    (tmp_path / ".lmstudio-home-pointer").write_text("nowhere")
    with pytest.raises(OutputError, match="start it once"):
        lm_studio_path("me", "m", "Q8_0", tmp_path)


@pytest.mark.parametrize("name", ["", "..", "/", "…"])
def test_names_without_a_letter(tmp_path, name):
    (tmp_path / ".lmstudio").mkdir()
    with pytest.raises(OutputError, match="a letter or a digit"):
        lm_studio_path("me", name, "Q8_0", tmp_path)
