"""What transformers computes from a folder, and how far from it another's probabilities are."""

from pathlib import Path

import numpy as np
import torch

BOUND = 0.05
"""A wrong export must differ by more: in log-probability, over tokens above 1e-4."""
COUNTED = np.log(1e-4)


def reference(folder: Path, texts: list[list[int]]) -> np.ndarray:
    """float64 [texts, n, vocabulary]: log-probabilities by transformers' whole model in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return torch.log_softmax(model.eval()(torch.tensor(texts)).logits.double(), -1).numpy()


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference of log-probabilities over the tokens that `expected` counts."""
    return float(np.abs(found - expected)[expected > COUNTED].max())
