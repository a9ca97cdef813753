"""The bundled checkpoint does what its card says: a real swap of real photographs, background untouched."""

import numpy as np
import pytest

import mattface
from mattface import weights


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
