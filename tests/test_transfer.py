"""IDATT and its flow: what they compute, at small sizes and against explicit formulas."""

import pytest
import torch

from mattface.layers import resize
from mattface.transfer.correspond import Correspond
from mattface.transfer.idatt import IDATT, LEVELS, PyramidIDATT, position_grid
from mattface.vocabulary import FeaturePyramid


def random_pyramid(seed: int, batch: int = 2) -> FeaturePyramid:
    rng = torch.Generator().manual_seed(seed)
    return FeaturePyramid(*(torch.randn(batch, c, s, s, generator=rng) for c, s in ((8, 16), (12, 8), (16, 4))))


def test_idatt_is_the_papers_formula():
    torch.manual_seed(0)
    block = IDATT(16)
    block.gamma.data.fill_(0.7)
    source, target = torch.randn(2, 16, 5, 7), torch.randn(2, 16, 6, 4)
    out, flow = block(source, target)
    q, k, v = (m(x).flatten(2) for m, x in ((block.query, target), (block.key, source), (block.value, source)))
    attention = torch.softmax(q.transpose(1, 2) @ k, dim=-1)  # (B, N_t, N_s)
    moved = (v @ attention.transpose(1, 2)).view(2, 4, 6, 4)
    assert torch.allclose(out, target + 0.7 * block.out(moved), atol=1e-5)
    where = attention @ position_grid(5, 7, torch.device("cpu"), torch.float32)
    assert torch.allclose(flow, where.transpose(1, 2).view(2, 2, 6, 4), atol=1e-5)


def test_idatt_starts_as_identity():
    target = torch.randn(1, 8, 4, 4)
    out, _ = IDATT(8)(torch.randn(1, 8, 4, 4), target)
    assert torch.equal(out, target)


def test_flow_finds_where_features_went():
    """Queries and keys that agree only where both show the same thing give the permutation as flow."""
    codes = torch.eye(16).view(1, 16, 4, 4) * 12
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    block = IDATT(16, reduction=1)
    for conv in (block.query, block.key):
        conv.weight.data = torch.eye(16).view(16, 16, 1, 1)
        conv.bias.data.zero_()
    _, flow = block(codes.flatten(2)[:, :, order].view(1, 16, 4, 4), codes)
    grid = position_grid(4, 4, torch.device("cpu"), torch.float32)
    place = torch.empty(16, dtype=torch.long)
    place[order] = torch.arange(16)  # code c sits at source position place[c]
    assert torch.allclose(flow.view(2, 16).T, grid[place], atol=1e-4)


def test_half_precision_keeps_positions_exact():
    torch.manual_seed(1)
    block = IDATT(16)
    source, target = torch.randn(1, 16, 32, 32), torch.randn(1, 16, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        _, flow = block(source, target)
    assert flow.dtype == torch.float32
    assert (flow - block(source, target)[1]).abs().max() < 0.02


@pytest.mark.parametrize("levels", [LEVELS, ("fine",), ("medium", "fine"), ()])
def test_levels_left_out_pass_the_target(levels):
    transfer = PyramidIDATT((8, 12, 16), levels)
    for block in transfer.levels.values():
        block.gamma.data.fill_(1.0)
    source, target = random_pyramid(0), random_pyramid(1)
    swapped, flows = transfer(source, target)
    assert tuple(flows) == levels
    for name in LEVELS:
        same = torch.equal(getattr(swapped, name), getattr(target, name))
        assert same == (name not in levels)


def test_unknown_level_is_rejected():
    with pytest.raises(ValueError, match="levels must be among"):
        PyramidIDATT((8, 12, 16), ("coarsest",))


def test_gradients_reach_every_parameter():
    transfer = PyramidIDATT((8, 12, 16))
    for block in transfer.levels.values():
        block.gamma.data.fill_(1.0)
    match = Correspond(8, widths=(8, 8, 8))
    for p in match.parameters():
        torch.nn.init.normal_(p, std=0.1)
    source, target = random_pyramid(0), random_pyramid(1)
    swapped, flows = transfer(source, target)
    image = torch.rand(2, 3, 64, 64)
    out = match(source, target, swapped, flows, image, image.flip(-1), torch.rand(2, 1, 64, 64))
    sum((x**2).sum() for x in (*vars(out).values(), *swapped.levels())).backward()
    for module in (transfer, match):
        for name, p in module.named_parameters():
            assert p.grad is not None and p.grad.abs().sum() > 0, name


def test_correspondence_starts_as_the_attentions_flow():
    transfer, match = PyramidIDATT((8, 12, 16)), Correspond(8, widths=(8, 8, 8))
    source, target = random_pyramid(0), random_pyramid(1)
    swapped, flows = transfer(source, target)
    image, mask = torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    out = match(source, target, swapped, flows, image, image, mask)
    assert out.flow.shape == (2, 2, 64, 64) and out.matte.shape == (2, 1, 64, 64)
    assert torch.allclose(out.flow, resize(resize(flows["coarse"], 32), 64))
    assert torch.allclose(out.confidence, torch.full_like(out.confidence, 0.5))
