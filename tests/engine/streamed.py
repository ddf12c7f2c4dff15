"""What our own streaming computes from a model, for tests of files and folders."""

from pathlib import Path

import numpy as np
import torch

from engine.architectures import transformers_view
from engine.checkpoint import open_checkpoint
from engine.streaming import StreamedModel


def streamed_log_probabilities(path: Path, texts: list[list[int]]) -> np.ndarray:
    """float64 [texts, n, vocabulary] of a folder or GGUF file, a block at a time."""
    tokens = np.array(texts)
    with open_checkpoint(path) as checkpoint, torch.no_grad():
        model = StreamedModel(transformers_view(checkpoint), str(path))
        with model.embedding():
            states = model.embed(tokens)
        for index in range(model.block_count):
            with model.block(index):
                states = model.run(index, states)
        with model.head():
            logits = model.logits(states.flatten(0, 1))
    return torch.log_softmax(logits.double(), -1).reshape(*tokens.shape, -1).numpy()
