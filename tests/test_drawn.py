"""Drawn people: closed-form heads, directions, ground truth of swaps, the transfer that learns it, and the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_people import TinyArtist, random_features

from mattface.code_heads import CodeHeads, flatten_features
from mattface.edit import Attribute, Directions
from mattface.errors import UsageError
from mattface.mesh.attributes import NAMES
from mattface.training.drawn import swaps
from mattface.training.drawn.directions import AXES, fit_directions
from mattface.training.drawn.heads import explained, fit_heads
from mattface.training.drawn.store import extend, open_store
from mattface.training.drawn.swaps import KnownPeople
from mattface.transfer.recognition import RecognitionTransfer


def test_heads_find_a_linear_map_and_explain_people_left_out() -> None:
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(400, 5, generator=rng)
    features = hidden @ torch.randn(5, 60, generator=rng) + 0.01 * torch.randn(400, 60, generator=rng)
    codes = (hidden @ torch.randn(5, 18 * 8, generator=rng)).view(400, 18, 8) + 3
    heads = fit_heads(features[:300], codes[:300], codes.mean((0, 1)), rank=8)
    assert explained(heads, features[300:], codes[300:]).min() > 0.95
    assert explained(heads, features[300:].roll(1, 0), codes[300:]).max() < 0.2
    with pytest.raises(UsageError, match="need as many people"):
        fit_heads(features[:4], codes[:4], codes.mean((0, 1)), rank=8)


def test_directions_change_their_own_attribute_and_hold_identity() -> None:
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(3000, 512)) * np.linspace(2, 0.01, 512)
    told, person = rng.normal(size=(512, len(NAMES))), rng.normal(size=(512, 128))
    styles = rng.normal(size=(1500, 512)) * np.linspace(2, 0.01, 512)
    found = fit_directions(styles, styles @ told, styles @ person, basis)
    change = found @ told
    assert np.allclose(np.diag(change), 1, atol=0.35)
    assert np.abs(change - np.diag(np.diag(change))).max() < 0.3
    with pytest.raises(UsageError, match="more than"):
        fit_directions(styles[:AXES], styles[:AXES] @ told, styles[:AXES] @ person, basis)


def test_the_transfer_begins_with_the_source_beside_the_target_and_gamma_0_leaves_it_out() -> None:
    transfer, source, target = RecognitionTransfer(), random_features(1, 1), random_features(1, 2)
    transfer.begin_beside()
    seen = transfer(source, target)
    assert [m.shape[1] for m in seen.pyramid.levels()] == [128, 256, 512]
    fine, wide = seen.pyramid.fine, target.pyramid.fine
    assert torch.allclose(fine[:, :256], wide, atol=1e-5)
    assert fine[:, 256:].abs().max() > 0.1
    for level in transfer.levels.values():
        torch.nn.init.zeros_(level.gamma)
    alone = transfer(source, target)
    assert torch.allclose(alone.pyramid.coarse[:, :64], target.pyramid.coarse)
    assert not alone.pyramid.coarse[:, 64:].any()
    assert torch.equal(alone.context, target.context)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> KnownPeople:
    store = open_store(tmp_path_factory.mktemp("people"), seed=3, capacity=40)
    return KnownPeople.read(extend(store, TinyArtist(), 40, progress=False))  # type: ignore[arg-type]


def directions() -> Directions:
    rng = torch.Generator().manual_seed(4)
    moves = {name: 0.02 * torch.randn(512, generator=rng) for name in NAMES}
    return Directions({n: Attribute("degrees", 99.0, (2 * k, 2 * k + 4), moves[n]) for k, n in enumerate(NAMES)})


def test_the_answer_of_a_swap_is_the_source_with_the_targets_attributes(people: KnownPeople) -> None:
    one, other = people.usable[:1], people.usable[1:2]
    own = people.swap_code(one, one, directions())
    assert torch.allclose(own, people.codes[one], atol=1e-6)
    swapped = people.swap_code(one, other, directions())
    change = (people.attributes[other] - people.attributes[one]).clamp(-2.5 * people.std, 2.5 * people.std)
    wanted = people.codes[one][0, 0] + change[0, 0] * directions().attributes["yaw"].direction
    assert torch.allclose(swapped[0, 0], wanted, atol=1e-4)
    assert torch.allclose(swapped[0, 17], 0.4 * people.codes[one][0, 17] + 0.6 * people.codes[other][0, 17], atol=1e-5)


def test_training_lowers_the_error_of_codes(people: KnownPeople, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "HEADS_RANK", 16)
    torch.manual_seed(0)
    transfer = RecognitionTransfer()
    transfer.begin_beside()
    heads = swaps.fit_swap_heads(people, transfer, directions(), 40, torch.Generator().manual_seed(0))
    losses: list[float] = []
    before = error(people, transfer, heads)
    swaps.train_transfer(
        people, transfer, heads, directions(), steps=3, lr=3e-4, batch=12, report=lambda step, loss: losses.append(loss)
    )
    assert len(losses) == 3
    assert people.explained(transfer, heads, directions(), 40, count=24) > people.explained(
        transfer, type(heads)(heads.mean.shape[0], 16), directions(), 40, count=64
    )
    assert len(people.without(20).usable) < len(people.usable)
    assert error(people, transfer, heads) < before
    assert all(torch.isfinite(p).all() for p in transfer.parameters())


def error(people: KnownPeople, transfer: RecognitionTransfer, heads: CodeHeads) -> float:
    """Mean squared error of codes over pairs that the training also draws from."""
    source, target = people.pairs(24, torch.Generator().manual_seed(9), people.usable)
    with torch.no_grad():
        made = heads(transfer(people.store.features(source), people.store.features(target)))
    return float((made - people.swap_code(source, target, directions())).square().mean())


def test_a_store_grows_without_drawing_anybody_twice(tmp_path: Path) -> None:
    artist = TinyArtist()
    first = extend(open_store(tmp_path / "s", seed=1, capacity=20), artist, 8, progress=False)  # type: ignore[arg-type]
    again = open_store(tmp_path / "s", seed=1, capacity=20)
    assert again.count == first.count == 8
    grown = extend(again, artist, 12, progress=False)  # type: ignore[arg-type]
    assert artist.drawn == list(range(12))
    known = KnownPeople.read(grown)
    assert 6 not in known.usable
    assert len(known.usable) == 11
    alone = TinyArtist()
    whole = extend(open_store(tmp_path / "t", seed=1, capacity=20), alone, 12, progress=False)  # type: ignore[arg-type]
    assert np.array_equal(whole.array("code"), grown.array("code"))
    assert torch.equal(
        flatten_features(whole.features(torch.arange(3))), flatten_features(grown.features(torch.arange(3)))
    )
    with pytest.raises(UsageError, match="people of seed 1"):
        open_store(tmp_path / "s", seed=2, capacity=20)
    with pytest.raises(UsageError, match="up to 20 people; got 21"):
        extend(grown, artist, 21, progress=False)  # type: ignore[arg-type]
