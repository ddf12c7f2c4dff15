"""Opens models by their headers alone and reads their weights in pieces, from any layout that people have.

`open_checkpoint` for a Hugging Face folder, a .safetensors, a .gguf (split too), a pytorch_model.bin;
`check_finite` before anything is made of one. Every mistake in a source is a `CheckpointError` (`errors.py`).
"""

from engine.checkpoint.checkpoint import Checkpoint, Tensor
from engine.checkpoint.finite import check_finite
from engine.checkpoint.opening import open_checkpoint

__all__ = ["Checkpoint", "Tensor", "check_finite", "open_checkpoint"]
