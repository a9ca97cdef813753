"""What only a GPU can show of the CUDA kernels: registration, CUDA graphs, streams, sizes. See test_ops_cuda.py.

All tests of a GPU: pytest -m gpu.
"""

from __future__ import annotations

import pytest
import torch

from mattface.cuda_ops import _implementations, setup_filter
from mattface.cuda_ops._bias_act import bias_act
from mattface.cuda_ops._upfirdn2d import upfirdn2d
from mattface.cuda_ops.fused import noise_bias_act, upsample_add

BLUR = setup_filter([1, 3, 3, 1])
LAYOUTS = [torch.contiguous_format, torch.channels_last]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is False"),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck(layout: torch.memory_format) -> None:
    f = BLUR.cuda()
    x = torch.randn(2, 8, 8, 6, device="cuda").contiguous(memory_format=layout).requires_grad_()
    b = torch.randn(8, device="cuda", requires_grad=True)
    ops, stated = torch.ops.mattface, ("lrelu", 0.2, 1.5, 1.0)
    for up, down in (([2, 2], [1, 1]), ([1, 1], [2, 2]), ([1, 1], [1, 1])):
        torch.library.opcheck(ops.upfirdn2d.default, (x, f, up, down, [4, 5, 4, 4], False, 2.0))
    torch.library.opcheck(ops.bias_act.default, (x, b, 1, *stated))
    plain, bias = x.detach(), b.detach()
    torch.library.opcheck(ops.noise_bias_act_.default, (plain.clone(), bias, None, None, None, "lrelu", 1.0))
    torch.library.opcheck(ops.upsample_add_.default, (torch.zeros_like(plain).repeat(1, 1, 2, 2), plain, f))


def test_named_and_chosen() -> None:
    x = torch.randn(1, 2, 5, 5, device="cuda")
    assert torch.equal(bias_act(x, act="lrelu", impl="cuda"), bias_act(x, act="lrelu"))
    assert all(entry["chosen"] == "cuda" for entry in _implementations.available().values())
    with pytest.raises(ValueError, match="needs x on that device; got cpu"):
        bias_act(x.cpu(), impl="cuda")


def test_parameters_elsewhere_are_rejected() -> None:
    x = torch.zeros(1, 2, 3, 3, device="cuda")
    with pytest.raises(RuntimeError, match="expected bias on the device of x"):
        _implementations.native(x).epilogue_(x, x, None, None, None, torch.zeros(2), 1, 2, 9, False, 0, 0.0, 1.0, -1.0)


def chain(x: torch.Tensor, b: torch.Tensor, f: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Every native op, with parameters that live on the GPU."""
    y = noise_bias_act(x, b, noise=noise, strength=level, f=f, padding=[2, 1, 2, 1])
    y = noise_bias_act(y, b, b[None].expand(len(x), -1), noise, level, "swish", 256.0)
    return upsample_add(y, f, bias_act(upfirdn2d(y, torch.ones(12, device=x.device) / 12, 2, padding=[6, 5, 6, 5]), b))


def arguments() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 32, 32, device="cuda").contiguous(memory_format=torch.channels_last)
    return (
        x,
        torch.randn(16, device="cuda"),
        BLUR.cuda(),
        torch.randn(1, 1, 32, 32, device="cuda"),
        torch.tensor(0.5, device="cuda"),
    )


@torch.no_grad()
def test_cuda_graph_replays_and_nothing_waits() -> None:
    given = arguments()
    expected = chain(*given)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        chain(*given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = chain(*given)
    given[0].mul_(2)
    graph.replay()
    assert torch.allclose(y, chain(*given), atol=1e-5)
    assert not torch.allclose(y, expected)


@torch.no_grad()
def test_current_stream_is_used() -> None:
    given, side = arguments(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        given[0].mul_(3)
        y = chain(*given)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(y, chain(*given))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@torch.no_grad()
def test_second_gpu() -> None:
    given = arguments()
    moved = [t.to("cuda:1") for t in given]
    assert torch.allclose(chain(*moved).cpu(), chain(*given).cpu(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_more_than_two_billion_elements(layout: torch.memory_format) -> None:
    """Needs 20 GB. Slices at the end equal the same ops on that slice alone."""
    if torch.cuda.get_device_properties(0).total_memory < 24e9:
        pytest.skip("needs a GPU with 24 GB")
    f = BLUR.cuda()
    x = torch.empty((33, 64, 1024, 1024), dtype=torch.bfloat16, device="cuda", memory_format=layout).normal_()
    b = torch.randn(64, device="cuda").bfloat16()
    assert x.numel() > 2**31
    end = x[-1:].clone(memory_format=torch.preserve_format)
    assert torch.equal(upfirdn2d(x, f, padding=[2, 1, 2, 1])[-1:], upfirdn2d(end, f, padding=[2, 1, 2, 1]))
    assert torch.equal(upfirdn2d(x, f, down=2, padding=1)[-1:], upfirdn2d(end, f, down=2, padding=1))
    assert torch.equal(bias_act(x, b, act="lrelu")[-1:], bias_act(end, b, act="lrelu"))
    flat = x.view(-1) if layout == torch.contiguous_format else x.permute(0, 2, 3, 1).reshape(-1)
    assert torch.equal(bias_act(flat, dim=0, act="relu")[-1000:], bias_act(flat[-1000:], dim=0, act="relu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch", [1, 3])
def test_generator_on_a_gpu_equals_the_cpu(dtype: torch.dtype, batch: int) -> None:
    """The whole chain of ops around cuDNN's convolutions."""
    from mattface.generate.synthesis import SynthesisNetwork

    torch.manual_seed(0)
    net = SynthesisNetwork(32, 256, channel_base=4096, channel_max=64).eval().requires_grad_(False)
    w_plus = torch.randn(batch, net.num_styles, 32)
    expected = net(w_plus).image
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        got = net.cuda()(w_plus.cuda()).image.cpu().float()
    assert (got - expected).abs().max() < (1e-3 if dtype == torch.float32 else 0.05) * expected.abs().max()
