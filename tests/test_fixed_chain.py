"""The paper's chain over a fixed generator, from tiny parts: codes, ablation of the transfer, generators, placing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_people import tiny_body, tiny_generator

from mattface.code_heads import CodeHeads, flatten_features
from mattface.errors import UsageError, WeightsError
from mattface.generate.named import EMBEDDED
from mattface.generate.synthesis import SynthesisNetwork
from mattface.methods.fixed_chain import FixedChain, mean_swap
from mattface.methods.mattface import build
from mattface.transfer.recognition import RecognitionTransfer
from mattface.vocabulary import Swap

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def chain() -> FixedChain:
    body, transfer = tiny_body(), RecognitionTransfer()
    transfer.begin_beside()
    seen = body(face(0))
    inputs = flatten_features(transfer(seen, seen)).shape[1]
    torch.manual_seed(3)
    heads = CodeHeads(inputs, 4)
    return FixedChain(body, transfer, heads, tiny_generator()).eval().requires_grad_(False)


def face(seed: int) -> torch.Tensor:
    return torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_source_and_target_both_decide_what_is_drawn(chain: FixedChain) -> None:
    one, two, three = (chain.encode(face(seed)) for seed in (1, 2, 3))
    code, picture = chain(one, two)
    assert code.shape == (1, 18, 512)
    assert picture.shape == (1, 3, 1024, 1024)
    assert not torch.allclose(code, chain(three, two)[0])
    assert not torch.allclose(code, chain(one, three)[0])


def test_without_the_transfer_the_source_says_nothing(chain: FixedChain) -> None:
    one, two, three = (chain.encode(face(seed)) for seed in (1, 2, 3))
    gammas = [level.gamma for level in chain.transfer.levels.values()]
    try:
        for gamma in gammas:
            gamma.fill_(0.0)
        assert torch.equal(chain(one, two)[0], chain(three, two)[0])
        gammas[0].fill_(1.0)
        assert not torch.equal(chain(one, two)[0], chain(three, two)[0]), "one level is enough to tell sources apart"
    finally:
        for gamma in gammas:
            gamma.fill_(1.0)


def test_one_code_drives_both_layouts_of_generators(chain: FixedChain) -> None:
    code, _ = chain(chain.encode(face(1)), chain.encode(face(2)))
    official = SynthesisNetwork(512, 1024, channels={4 << i: 4 for i in range(9)}).eval()
    with torch.inference_mode():
        pictures = [network(code).image for network in (chain.generate, official)]
    assert [tuple(p.shape) for p in pictures] == [(1, 3, 1024, 1024)] * 2
    assert chain.generate.num_styles == official.num_styles == 18


def test_refinement_draws_nearer_to_the_source_and_stops_when_told(chain: FixedChain) -> None:
    source, target = chain.encode(face(1)), chain.encode(face(2))
    code, _ = chain(source, target)
    losses: list[float] = []
    better = chain.refine(code, source, 6, lambda done, of, loss: not losses.append(loss))
    assert min(losses) < losses[0]

    def apart(w_plus: torch.Tensor) -> float:
        return float((chain.encode(chain.draw(w_plus)).identity - source.identity).norm())

    assert apart(better) < apart(code)
    assert torch.equal(chain.refine(code, source, 9, lambda done, of, loss: False), code)


def test_a_mean_of_swaps_pastes_the_mean_of_their_pictures() -> None:
    rng = torch.Generator().manual_seed(0)
    target, a, b = (torch.rand(1, 3, 8, 8, generator=rng) for _ in range(3))
    first, second = (Swap(p, torch.rand(1, 1, 8, 8, generator=rng)) for p in (a, b))
    first.matte[..., :3] = 0
    second.matte[..., :2] = 0
    both = mean_swap(first, second, target, 0.3)

    def paste(swap: Swap) -> torch.Tensor:
        return swap.matte * swap.pixels + (1 - swap.matte) * target

    assert torch.allclose(paste(both), 0.7 * paste(first) + 0.3 * paste(second), atol=1e-5)
    assert torch.equal(both.matte[..., :2], torch.zeros(1, 1, 8, 2))


def test_checkpoints_and_options_that_do_not_fit(tmp_path: Path, need: Callable[..., None]) -> None:
    with pytest.raises(UsageError, match="options detail, generator and refine; got level"):
        build(None, CPU, torch.float32, level="fine")
    with pytest.raises(UsageError, match="carries a generator of its own"):
        build("mattface-demo", CPU, torch.float32, generator="mobile-ffhq")
    need(EMBEDDED, "identity-resnet")
    path = tmp_path / "empty.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"chain": "fixed"})
    with pytest.raises(WeightsError, match="expected heads in"):
        build(str(path), CPU, torch.float32)
    with pytest.raises(UsageError, match="expected a generator, mobile-ffhq or stylegan2-ffhq"):
        build(str(path), CPU, torch.float32, generator="mobile-cats")


def test_a_drawing_without_a_face_replaces_nothing(
    chain: FixedChain, tmp_path: Path, need: Callable[..., None], astronaut: np.ndarray, hopper: np.ndarray
) -> None:
    need(EMBEDDED, "identity-resnet", "centerface", "face-mesh")
    import mattface

    state = {f"heads.{k}": v.contiguous() for k, v in chain.heads.state_dict().items()}
    state |= {f"transfer.{k}": v.contiguous() for k, v in chain.transfer.state_dict().items()}
    noise = torch.randn(state["heads.expand.bias"].shape, generator=torch.Generator().manual_seed(0))
    state["heads.expand.bias"] = 4 * noise  # far from any person
    path = tmp_path / "nobody.safetensors"
    save_file(state, path, {"chain": "fixed"})
    swapper = mattface.load("mattface", weights=str(path), device="cpu")
    result = swapper.swap(astronaut, hopper, measure=False)
    assert np.array_equal(result.image, hopper)
    assert not result.matte.any()
