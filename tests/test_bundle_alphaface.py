"""The bundled checkpoint of alphaface-small does what its card says, in a still and in the live loop."""

import time

import numpy as np
import pytest
import torch

import mattface
from mattface import weights
from mattface.errors import WeightsError
from mattface.realtime.engine import accelerate


def test_the_bundled_network_matches_its_card():
    card = weights.card("alphaface-demo")
    assert weights.find("alphaface-demo").stat().st_size == card.size <= 20_000_000
    assert weights.verify(["alphaface-demo"]) == {"alphaface-demo": "ok"}
    tensors, metadata = weights.load_tensors("alphaface-demo")
    assert metadata["method"] == "alphaface" and metadata["name"] == "alphaface-demo"
    assert {t.dtype for t in tensors.values()} == {torch.float16}


@pytest.fixture(scope="module")
def swapper(need):
    need("centerface", "face-mesh", "identity-resnet")
    return mattface.load("alphaface-small", device="cpu", dtype="fp32")


def test_under_its_earlier_name_it_says_which_method_to_take():
    with pytest.raises(WeightsError, match="alphaface-demo holds a network of alphaface-small"):
        mattface.load("alphaface", weights="alphaface-demo", device="cpu")


def test_it_changes_the_face_and_nothing_else(swapper, astronaut, hopper):
    result = swapper.swap(astronaut, hopper)
    outside, inside = result.matte == 0, result.matte > 0.9
    assert np.array_equal(result.image[outside], hopper[outside])
    assert 0.02 < inside.mean() < 0.3
    change = np.abs(result.image[inside].astype(float) - hopper[inside]).mean()
    assert change > 5, "the face must change"


def test_the_result_depends_on_the_source_and_is_nearer_to_it(swapper, astronaut, hopper):
    report = swapper.swap(astronaut, hopper).faces[0].report
    assert report["identity_cosine"] > report["identity_cosine_before"] + 0.1


def test_engines_agree_and_keep_up_with_a_camera(swapper):
    run, given = swapper.method.run, swapper.method.example()
    fast = accelerate(swapper, "winograd").method.run
    torch.testing.assert_close(fast(*given), run(*given), atol=2e-3, rtol=1e-3)
    start = time.process_time()
    for _ in range(3):
        fast(*given)
    assert (time.process_time() - start) / 3 < 0.5, "a frame must not cost half a second of one core"
