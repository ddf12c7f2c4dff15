"""Each table against transformers' own modules, at the sizes of a published model."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.architectures import ARCHITECTURES
from engine.architectures.description import Architecture, Place


def shape_of_module(place: Place) -> tuple[int, ...]:
    if place.part is not None:
        return (*place.shape[:-2], place.part[1], place.shape[-1])
    return place.stored_shape[1:] if len(place.modules) > 1 else place.stored_shape


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_every_parameter_but_the_head_has_its_place_and_shape(architecture: Architecture) -> None:
    """The head may be tied, and its name has changed with transformers 5."""
    config = AutoConfig.for_model(architecture.name, num_hidden_layers=2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    modules = {name: tuple(parameter.shape) for name, parameter in model.base_model.named_parameters()}
    prefix = model.base_model_prefix + "."
    places = {
        name.removeprefix(prefix): shape_of_module(place)
        for place in architecture.places(config)
        if place.canonical != "output.weight"
        for name in place.modules
    }
    assert places == modules
