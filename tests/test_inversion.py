"""Pictures to codes: heads, refinement, edits along directions, and what is rejected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_people import random_features, tiny_body, tiny_generator, tiny_heads

from mattface import inversion, verification
from mattface.cli import main
from mattface.code_heads import CodeHeads, flatten_features
from mattface.edit import load_directions, read_changes
from mattface.embed.body import SIZE
from mattface.errors import UsageError
from mattface.generate.named import EMBEDDED
from mattface.provenance import DIGITAL_SOURCE_TYPE


@pytest.fixture(scope="module")
def inverter() -> inversion.Inverter:
    body = tiny_body()
    inputs = flatten_features(body(torch.zeros(1, 3, SIZE, SIZE))).shape[1]
    return inversion.Inverter(body, tiny_heads(inputs), tiny_generator(), "tiny", torch.device("cpu"))


def crop(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, 512, 512, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_heads_are_an_affine_map_of_standardised_features() -> None:
    heads = CodeHeads(rank=3)
    with torch.no_grad():
        heads.mean.fill_(0.25)
        heads.std.fill_(2.0)
        heads.w_avg.fill_(1.5)
    seen = random_features(2)
    x = (flatten_features(seen) - 0.25) / 2
    wanted = (x @ heads.project.weight.t()) @ heads.expand.weight.t() + heads.expand.bias
    assert torch.allclose(heads(seen), wanted.view(2, 18, 512) + 1.5, atol=1e-4)


def test_the_body_sees_the_face_and_apart_from_it_the_whole_crop(inverter: inversion.Inverter) -> None:
    plain = torch.zeros(1, 3, SIZE, SIZE)
    corner = plain.clone()
    corner[:, :, :40, :40] = 1.0  # hair or background: outside the face
    one, other = inverter.body(plain), inverter.body(corner)
    assert torch.equal(one.pyramid.coarse, other.pyramid.coarse)
    assert torch.equal(one.identity, other.identity)
    assert not torch.equal(one.context, other.context)
    assert [tuple(m.shape[1:]) for m in one.pyramid.levels()] == [(64, 17, 17), (128, 8, 8), (256, 2, 2)]
    with pytest.raises(UsageError, match=r"expects \(B, 3, 256, 256\); got \(1, 3, 128, 128\)"):
        inverter.body(plain[:, :, ::2, ::2])


def test_refinement_draws_the_picture_better_and_stops_when_told(inverter: inversion.Inverter) -> None:
    steps: list[float] = []
    picture = crop()
    start = inverter.encode(picture)
    found = inverter.refine(picture, start, 4, lambda done, of, loss: bool(steps.append(loss)) or True)
    assert len(steps) == 4
    assert min(steps) < steps[0]
    assert not torch.equal(found, start)
    asked: list[int] = []
    stopped = inverter.refine(picture, start, 50, lambda done, of, loss: not asked.append(done) and done < 2)
    assert asked == [1, 2]
    near = inverter.refine(picture, start, 2)  # sums of gradients by threads differ in their last bits
    assert (stopped - near).abs().mean() < 0.1 * (near - start).abs().mean()


def test_an_inversion_reports_and_says_when_it_drew_somebody_else(inverter: inversion.Inverter) -> None:
    found = inverter(crop())
    assert found.w_plus.shape == (1, 18, 512)
    assert found.drawn.shape == (1, 3, 1024, 1024)
    assert found.report["steps"] == 0
    assert bool(found.report["notes"]) == (found.report["identity_distance"] > inversion.SAME)
    with pytest.raises(UsageError, match="steps must be 0"):
        inverter(crop(), steps=-1)


def test_directions_move_their_own_styles_only_and_no_farther_than_people_go() -> None:
    directions = load_directions()
    code = torch.zeros(1, 18, 512)
    moved = directions.move(code, {"yaw": 10.0})
    first, end = directions.attributes["yaw"].layers
    touched = moved[0].abs().sum(1) > 0
    assert touched.tolist() == [first <= i < end for i in range(18)]
    assert torch.allclose(directions.move(moved, {"yaw": -10.0}), code, atol=1e-5)
    with pytest.raises(UsageError, match=r"yaw must be within \+-25 degrees; got 26"):
        directions.move(code, {"yaw": 26.0})
    with pytest.raises(UsageError, match="expected an attribute, one of yaw"):
        directions.move(code, {"beard": 1.0})
    with pytest.raises(UsageError, match="got nan"):
        directions.move(code, {"yaw": float("nan")})


@pytest.mark.parametrize("text", ["yaw", "yaw=", "yaw=x", "=", "yaw=1=2"])
def test_edits_that_say_nothing_are_rejected(text: str) -> None:
    assert read_changes("yaw=20, smile=-1") == {"yaw": 20.0, "smile": -1.0}
    with pytest.raises(UsageError, match="expected NAME=NUMBER"):
        read_changes(text)


def test_the_command_names_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invert", str(tmp_path / "a.png"), "-o", str(tmp_path / "code.txt")]) == 2
    assert "ending in .safetensors" in capsys.readouterr().err


def test_a_photograph_becomes_a_code_that_draws_the_same_person(
    need: Callable[..., None], astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need(EMBEDDED, "identity-resnet", "centerface", "face-mesh")
    from PIL import Image
    from safetensors.torch import load_file

    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    code, sheet = tmp_path / "code.safetensors", tmp_path / "sheet.png"
    assert main(["invert", str(tmp_path / "photo.png"), "-o", str(code), "--compare", str(sheet)]) == 0
    layers = verification.verify(sheet, mark=False)["layers"]
    assert layers["xmp"]["digital_source_type"] == DIGITAL_SOURCE_TYPE and layers["c2pa"]["state"] == "untrusted"
    assert load_file(code)["w_plus"].shape == (1, 18, 512)
    with Image.open(sheet) as picture:
        assert picture.size == (2048, 1024)
    said = capsys.readouterr().out
    assert float(said.split("identity ")[1].split(" ")[0]) < 0.6
    assert main(["invert", str(tmp_path / "photo.png"), "-o", str(code)]) == 2
