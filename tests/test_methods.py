"""The registry of methods: every entry leads to a builder, names weights that have cards, and says their licence."""

from __future__ import annotations

import inspect

import pytest
import torch

from mattface import perception, weights
from mattface.errors import UsageError
from mattface.methods import METHODS, entry
from mattface.methods.contract import Description, Method
from mattface.methods.mesh import build

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", list(METHODS))
def test_an_entry_leads_to_a_builder_of_the_contract(name: str) -> None:
    parameters = list(inspect.signature(entry(name).builder()).parameters)
    assert parameters == ["weights", "device", "dtype", "commercial", "options"]


@pytest.mark.parametrize("name", list(METHODS))
def test_an_entry_tells_the_truth_about_its_weights(name: str) -> None:
    found, cards = entry(name), weights.cards()
    assert found.summary and found.licence and found.dtypes[0] == "fp32"
    assert found.weights is None or found.weights in cards
    assert all(need in cards or need in perception.KINDS for need in found.needs)
    used = [cards[n] for n in (found.weights, *found.needs) if n in cards]
    assert found.commercial <= all(card.commercial_use for card in used)


def test_an_unknown_method_is_rejected_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"one of alphaface, .*psp-mix; got 'deepfake'"):
        entry("deepfake")


def test_live_options_are_options_of_the_method() -> None:
    live = build(None, CPU, torch.float32, **entry("mesh").live)
    assert isinstance(live, Method)
    assert live.crop.largest == 320 and live.config.coarse == 2.0 and live.matte.config.look_every == 3
    assert live.describe() == Description("mesh", None, live.matte.parser.name)
    assert build(None, CPU, torch.float32).matte.config.look_every == 1
    with pytest.raises(UsageError, match=r"mesh options are .*look_every.*; got colour"):
        build(None, CPU, torch.float32, colour="blue")
    with pytest.raises(UsageError, match="look_every must be 1 frame or more; got 0"):
        build(None, CPU, torch.float32, look_every=0)
