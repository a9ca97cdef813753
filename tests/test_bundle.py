"""The bundled checkpoint does what its card says: a real swap of real photographs, background untouched."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import mattface
from mattface import align, perception, weights


def test_bundled_checkpoint_matches_its_card():
    card = weights.card("mattface-demo")
    path = weights.find("mattface-demo")
    assert path.stat().st_size == card.size <= 40_000_000
    assert weights.verify(["mattface-demo"]) == {"mattface-demo": "ok"}
    tensors, metadata = weights.load_tensors("mattface-demo")
    assert metadata["method"] == "mattface" and len(tensors) > 100


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_bundled_checkpoint_moves_the_face_and_nothing_else(need, astronaut, hopper, dtype):
    need("centerface", "face-mesh")
    source, target = astronaut, hopper
    result = mattface.load("mattface", device="cpu", dtype=dtype).swap(source, target)
    outside, inside = result.matte == 0, result.matte > 0.9
    assert np.array_equal(result.image[outside], target[outside])
    assert 0.005 < inside.mean() < 0.2
    change = np.abs(result.image[inside].astype(float) - target[inside]).mean()
    assert change > 10, "the face must change"
    own = mattface.load("mattface", device="cpu", dtype=dtype).swap(target, target)
    kept = np.abs(own.image[own.matte > 0.9].astype(float) - target[own.matte > 0.9]).mean()
    assert kept < 0.75 * change, "a face swapped with itself must stay nearer to itself"


def test_identity_moves_towards_the_source(need, astronaut, hopper):
    need("centerface", "face-mesh", "identity-resnet")
    swapper = mattface.load("mattface", device="cpu")
    report = swapper.swap(astronaut, hopper).faces[0].report
    assert report["identity_cosine"] > report["identity_cosine_before"] + 0.1


@pytest.mark.parametrize("colour", [(-0.9, -0.9, -0.9), (0.8, -0.7, -0.7), (0.95, 0.95, 0.95)])
def test_what_lies_before_a_face_is_seen(need, astronaut, colour):
    """A ball on a stick before mouth and chin is no face, nor is the fringe; eyes and cheeks are."""
    need("centerface", "face-mesh")
    find, measure = perception.load("detector"), perception.load("landmarks")
    parser = perception.load("parser", "visible")
    crop = align.cut(astronaut, measure(astronaut, find(astronaut)[0]), "ffhq", 512)
    bare, outline = (parse(crop)[0, 0].numpy() for parse in (parser, perception.load("parser", "mesh")))
    x, y = (int(v) for v in np.rint(crop.mesh[[13, 152], :2].mean(0)))
    ball = cv2.circle(np.zeros((512, 512), np.uint8), (x, y), 50, 1, -1)
    ball[y:, x - 18 : x + 18] = 1
    covered = torch.where(torch.from_numpy(ball > 0), torch.tensor(colour)[:, None, None], crop.pixels)
    seen = parser(replace(crop, pixels=covered))[0, 0].numpy()
    before = (cv2.erode(ball, np.ones((9, 9))) > 0) & (outline > 0.9)
    assert (seen[before] < 0.5).mean() > 0.95 and (bare[before] > 0.5).mean() > 0.95
    fringe, bridge, cheek = (tuple(np.rint(crop.mesh[k, 1::-1]).astype(int)) for k in (151, 6, 50))
    assert max(bare[fringe], seen[fringe]) < 0.5 < min(bare[bridge], bare[cheek], seen[bridge], seen[cheek])
    assert (bare[outline > 0.9] > 0.5).mean() > 0.85
