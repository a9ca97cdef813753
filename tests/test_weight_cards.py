"""Every card holds what a person has to know before taking a weight, and says how to get it."""

from __future__ import annotations

import re

import pytest

from mattface import weights
from mattface.weights import fetch
from mattface.weights.adopt import ARRAYS
from mattface.weights.convert import ONNX_ARCFACE
from mattface.weights.layouts.known import LAYOUTS

CARDS = weights.cards()
GRAPHS = {*ONNX_ARCFACE, "inswapper-onnx", "scrfd-onnx", "centerface-onnx"}
OWN = {name for name, card in CARDS.items() if card.origin.startswith("trained by this project")}
WANTED = {
    *("stylegan2-ffhq", "stylegan2-ffhq-nvidia", "psp-ffhq", "ir-se-50", "alphaface", "alphaface-identity"),
    *("alphaface-emap", "arcface-r50", "arcface-r100", "insightface-detector", "insightface-recognition"),
    *("insightface-recognition-r100", "inswapper-128", "bisenet", "deep3d", "lpips-vgg"),
    *("vgg16", "clip-vit-b32", "sdxl-unet", "sdxl-vae", "sdxl-text-encoder"),
    *("sdxl-text-encoder-2", "ict-face-model", "centerface", "face-mesh", "identity-resnet", "mattface-demo"),
}


def test_every_weight_of_the_field_has_a_card() -> None:
    assert set(CARDS) >= WANTED


@pytest.mark.parametrize("name", CARDS)
def test_schema(name: str) -> None:
    """Licence, origin, a way to get it, hash and size of what is fetched, conventions of what is computed."""
    card = CARDS[name]
    assert card.purpose and card.licence and card.origin and isinstance(card.commercial_use, bool)
    assert "mattface" in card.how or card.how.endswith("."), "says what to type or do"
    assert re.fullmatch(r"[0-9a-f]{64}|", card.sha256)
    assert not card.sha256 or card.size > 0, "a known file has a known size"
    assert card.layout in {"", *LAYOUTS, *GRAPHS, *ARRAYS}
    assert card.layout or card.sha256 or re.search(r"-[0-9a-f]{8,}\.", card.file) or name in OWN, "adopt can tell it"
    assert set(card.needs) <= set(CARDS)
    wanted = {"crop", "colour", "range"} | (set() if name in OWN else {"input", "outputs"})
    assert wanted <= set(card.conventions), wanted - set(card.conventions)


@pytest.mark.parametrize("name", CARDS)
def test_sources(name: str) -> None:
    """Archives state their hash where it is known, addresses are https, and what a card promises can be done."""
    card = CARDS[name]
    for source in card.sources:
        assert source.kind == "folder" or source.kind in fetch.FETCHERS
        assert source.kind != "https" or source.url.startswith("https://")
        assert source.kind != "pypi" or re.fullmatch(r"[0-9a-f]{64}", source.archive_sha256)
        assert str(source)
    fetchable = any(source.kind in fetch.FETCHERS for source in card.sources)
    assert fetchable == bool(re.search(r"mattface weights pull", card.how)), "pull is promised where it works, only"


def test_research_weights_are_not_called_commercial() -> None:
    for name, card in CARDS.items():
        if re.search(r"non-commercial|research or evaluation", card.licence):
            assert not card.commercial_use, name


def test_names_of_files_do_not_clash() -> None:
    """Two cards may not look for the same file name: one of them would find the other's file."""
    owners: dict[str, str] = {}
    for name, card in CARDS.items():
        for file in (card.file, *card.aliases):
            assert owners.setdefault(file, name) == name, f"{file}: {name} and {owners[file]}"


def test_groups() -> None:
    assert weights.expand(["buffalo_l"]) == ["insightface-detector", "insightface-recognition"]
    assert weights.expand(["antelopev2"]) == ["insightface-detector", "insightface-recognition-r100"]
    assert weights.expand(["lpips"]) == ["lpips-vgg", "vgg16"]
    assert len(weights.expand(["sdxl"])) == 4 and len(weights.expand(["alphaface-files"])) == 3
