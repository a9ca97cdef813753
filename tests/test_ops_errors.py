"""What the ops reject: errors of one line that name the op and the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mattface.cuda_ops import (
    bias_act,
    downsample2d,
    filter2d,
    noise_bias_act,
    setup_filter,
    upfirdn2d,
    upsample2d,
    upsample_add,
)

X, B = torch.zeros(1, 3, 4, 4), torch.zeros(3)
BLUR, BASE = setup_filter([1, 3, 3, 1]), torch.zeros(1, 3, 8, 8)
META = torch.zeros(1, 3, 4, 4, device="meta")
NAN, INF = float("nan"), float("inf")
Case = tuple[Callable[[], object], type[Exception], str]

UPFIRDN2D: list[Case] = [
    (lambda: upfirdn2d(X[0], None), ValueError, r"x must be \(B, C, H, W\); got shape \(3, 4, 4\)"),
    (lambda: upfirdn2d(X.int(), None), TypeError, "x must be a float64, .* tensor; got torch.int32"),
    (lambda: upfirdn2d(X.to(torch.complex64), None), TypeError, "got torch.complex64"),
    (lambda: upfirdn2d(X.to(torch.float8_e4m3fn), None), TypeError, "got torch.float8_e4m3fn"),
    (lambda: upfirdn2d(X.to_sparse(), None), TypeError, "x must be a dense tensor; got torch.sparse_coo"),
    (lambda: upfirdn2d([1], None), TypeError, "x must be .*; got list"),
    (lambda: upfirdn2d(X, torch.ones(2).int()), TypeError, "f must be a float64, .* tensor; got torch.int32"),
    (lambda: upfirdn2d(X, [1.0, 2.0]), TypeError, "f must be .*; got list"),
    (lambda: upfirdn2d(X, torch.ones(1, 1, 1)), ValueError, r"f must be \(K,\) or \(KH, KW\)"),
    (lambda: upfirdn2d(X, torch.ones([])), ValueError, r"f must be \(K,\) or \(KH, KW\)"),
    (lambda: upfirdn2d(X, torch.ones(0)), ValueError, "at least one tap"),
    (lambda: upfirdn2d(X, torch.ones(5)), ValueError, "padded image of 4x4; got 5x5"),
    (lambda: upfirdn2d(X, torch.ones(2), padding=-2), ValueError, "padded image of 0x0; got 2x2"),
    (lambda: upfirdn2d(X[:, :, :0], None), ValueError, "padded image of 0x4; got 1x1"),
    (lambda: upfirdn2d(X, torch.ones(2, device="meta")), ValueError, r"f must be on the device of x \(cpu\); got meta"),
    (lambda: upfirdn2d(META, torch.ones(2)), ValueError, r"f must be on the device of x \(meta\); got cpu"),
    (lambda: upfirdn2d(X, torch.ones(2, requires_grad=True)), ValueError, "Detach"),
    (lambda: upfirdn2d(X, None, up=0), ValueError, "up must be an integer of at least 1"),
    (lambda: upfirdn2d(X, None, up=True), ValueError, "up must be .*; got True"),
    (lambda: upfirdn2d(X, None, up=1.5), ValueError, "up must be .*; got 1.5"),
    (lambda: upfirdn2d(X, None, up="2"), ValueError, "up must be .*; got '2'"),
    (lambda: upfirdn2d(X, None, up=[1, 2, 3]), ValueError, "up must be"),
    (lambda: upfirdn2d(X, None, up=2**31), ValueError, "up must be .* at most 2147483647"),
    (lambda: upfirdn2d(X, None, down=[2, -1]), ValueError, r"down must be .*; got \[2, -1\]"),
    (lambda: upfirdn2d(X, None, padding=[1, 2, 3]), ValueError, "padding must be 1, 2 or 4 integers"),
    (lambda: upfirdn2d(X, None, padding=[1, False]), ValueError, r"padding must be .*; got \[1, False\]"),
    (lambda: upfirdn2d(X, None, padding=2**70), ValueError, "padding must be"),
    (lambda: upfirdn2d(X, None, padding=torch.ones(2)), ValueError, "padding must be .*; got Tensor"),
    (lambda: upfirdn2d(X, None, flip_filter="no"), TypeError, "flip_filter must be True or False; got 'no'"),
    (lambda: upfirdn2d(X, None, gain=NAN), ValueError, "gain must be finite; got nan"),
    (lambda: upfirdn2d(X, None, gain=10**400), ValueError, "gain must be finite; got inf"),
    (lambda: upfirdn2d(X, None, gain="2"), TypeError, "gain must be a number; got '2'"),
    (lambda: upfirdn2d(X, None, gain=True), TypeError, "gain must be a number; got True"),
    (lambda: upfirdn2d(X, None, gain=None), TypeError, "gain must be a number; got None"),
    (lambda: upfirdn2d(X, None, gain=torch.zeros(2, 2)), TypeError, "gain must be a number; got Tensor"),
    (lambda: upfirdn2d(X, None, impl="cuda"), RuntimeError, 'impl="cuda" cannot run'),
    (lambda: upfirdn2d(X, None, impl="fast"), ValueError, "impl must be"),
]
HELPERS: list[Case] = [
    (lambda: filter2d(X, [1.0]), TypeError, "f must be .*; got list"),
    (lambda: filter2d(X[0], BLUR), ValueError, "x must be"),
    (lambda: filter2d(X, BLUR, padding=-2), ValueError, "f must fit into the padded image of 3x3; got 4x4"),
    (lambda: filter2d(X, BLUR, gain=INF), ValueError, "gain must be finite"),
    (lambda: upsample2d(X, BLUR, up=0), ValueError, "up must be"),
    (lambda: upsample2d(X, BLUR, padding=0.5), ValueError, "padding must be .*; got 0.5"),
    (lambda: upsample2d(X, BLUR, gain="a"), TypeError, "gain must be a number"),
    (lambda: downsample2d(X, BLUR, down=-2), ValueError, "down must be"),
    (lambda: downsample2d(None, BLUR), TypeError, "x must be .*; got NoneType"),
    (lambda: setup_filter([1, -1]), ValueError, "sum of 0"),
    (lambda: setup_filter([0.1, 0.2, -0.3]), ValueError, "sum of 0"),
    (lambda: setup_filter([[1, 1]], separable=True), ValueError, "separable"),
    (lambda: setup_filter([]), ValueError, "with taps"),
    (lambda: setup_filter(torch.ones(1, 1, 1)), ValueError, r"got shape \(1, 1, 1\)"),
    (lambda: setup_filter([1, NAN]), ValueError, "f must be finite"),
    (lambda: setup_filter("1331"), TypeError, "f must be real numbers .*; got '1331'"),
    (lambda: setup_filter([[1, 2], [3]]), TypeError, "rows of one length"),
    (lambda: setup_filter(torch.ones(2, dtype=torch.complex64)), TypeError, "f must be real numbers"),
    (lambda: setup_filter([1, 1], gain=INF), ValueError, "gain must be finite"),
    (lambda: setup_filter([1, 1], gain=-1), ValueError, "gain must be at least 0"),
]
BIAS_ACT: list[Case] = [
    (lambda: bias_act(X.long()), TypeError, "x must be a float64, .* tensor; got torch.int64"),
    (lambda: bias_act(1.0), TypeError, "x must be .*; got float"),
    (lambda: bias_act(X, torch.zeros(4)), ValueError, r"b must have shape \(3,\) for dim 1; got \(4,\)"),
    (lambda: bias_act(X, torch.zeros(1, 3)), ValueError, r"got \(1, 3\)"),
    (lambda: bias_act(X[0, 0, 0, 0], B), ValueError, "dim must be a dimension of x, which has 0; got 1"),
    (lambda: bias_act(X, B.double()), TypeError, "b must be torch.float32 like x; got torch.float64"),
    (lambda: bias_act(X, [0.0] * 3), TypeError, "b must be .*; got list"),
    (lambda: bias_act(X, torch.zeros(3, device="meta")), ValueError, r"b must be on the device of x \(cpu\); got meta"),
    (lambda: bias_act(X, B, dim=4), ValueError, "dim must be a dimension of x, which has 4; got 4"),
    (lambda: bias_act(X, B, dim=True), TypeError, "dim must be an integer; got True"),
    (lambda: bias_act(X, B, dim=1.0), TypeError, "dim must be an integer; got 1.0"),
    (lambda: bias_act(X, act="gelu"), ValueError, "act must be one of linear"),
    (lambda: bias_act(X, act=3), ValueError, "act must be one of linear.*; got 3"),
    (lambda: bias_act(X, gain=INF), ValueError, "gain must be finite; got inf"),
    (lambda: bias_act(X, gain="1"), TypeError, "gain must be a number; got '1'"),
    (lambda: bias_act(X, alpha=NAN), ValueError, "alpha must be finite; got nan"),
    (lambda: bias_act(X, act="lrelu", alpha=-0.1), ValueError, "alpha must be at least 0; got -0.1"),
    (lambda: bias_act(X, clamp=-1), ValueError, "clamp must be None or at least 0; got -1"),
    (lambda: bias_act(X, clamp=NAN), ValueError, "clamp must be finite; got nan"),
    (lambda: bias_act(X, clamp=False), TypeError, "clamp must be a number; got False"),
    (lambda: bias_act(X, impl="cuda"), RuntimeError, 'impl="cuda" cannot run'),
]
FUSED: list[Case] = [
    (lambda: noise_bias_act(X[0], B), ValueError, r"x must be \(B, C, H, W\)"),
    (lambda: noise_bias_act(X, None), TypeError, "b must be .*; got NoneType"),
    (lambda: noise_bias_act(X, B[:2]), ValueError, r"b must have shape \(3,\) for x \(1, 3, 4, 4\); got \(2,\)"),
    (lambda: noise_bias_act(X, B.double()), TypeError, "b must be torch.float32 like x; got torch.float64"),
    (lambda: noise_bias_act(X, B, B), ValueError, r"scale must have shape \(1, 3\) .*; got \(3,\)"),
    (lambda: noise_bias_act(X, B, X[0, :, :, 0].int()), TypeError, "scale must be a float64"),
    (lambda: noise_bias_act(X, B, META[:, :, 0, 0]), ValueError, "scale must be on the device of x"),
    (lambda: noise_bias_act(X, B, None, X), ValueError, r"noise must have shape \(1, 1, 4, 4\) .*; got \(1, 3, 4, 4\)"),
    (lambda: noise_bias_act(X, B, None, X[0, 0]), ValueError, r"noise must have shape"),
    (lambda: noise_bias_act(X, B, None, X[:, :1], f=BLUR), ValueError, r"noise must have shape \(1, 1, 1, 1\)"),
    (lambda: noise_bias_act(X, B, None, 0.5), TypeError, "noise must be .*; got float"),
    (lambda: noise_bias_act(X, B, None, META[:, :1]), ValueError, "noise must be on the device of x"),
    (lambda: noise_bias_act(X, B, None, X[:, :1], B), ValueError, r"strength must have shape \(\) .*; got \(3,\)"),
    (lambda: noise_bias_act(X, B, None, X[:, :1], 0.5), TypeError, "strength must be .*; got float"),
    (lambda: noise_bias_act(X, B, act="gelu"), ValueError, "act must be one of"),
    (lambda: noise_bias_act(X, B, clamp=NAN), ValueError, "clamp must be finite"),
    (lambda: noise_bias_act(X, B, f=torch.ones(5)), ValueError, "f must fit into the padded image of 4x4; got 5x5"),
    (lambda: noise_bias_act(X, B, f=BLUR, filter_gain=INF), ValueError, "filter_gain must be finite"),
    (lambda: noise_bias_act(X, B, f=BLUR, padding="1"), ValueError, "padding must be"),
    (lambda: noise_bias_act(X, B, overwrite=1), TypeError, "overwrite must be True or False; got 1"),
    (lambda: noise_bias_act(X, B, impl="cuda"), RuntimeError, 'impl="cuda" cannot run'),
    (lambda: upsample_add(X, BLUR, X), ValueError, r"base must have shape \(1, 3, 8, 8\) .*; got \(1, 3, 4, 4\)"),
    (lambda: upsample_add(X, BLUR, None), TypeError, "base must be .*; got NoneType"),
    (lambda: upsample_add(X, None, BASE), TypeError, "f must be .*; got NoneType"),
    (lambda: upsample_add(X, BLUR, BASE.double()), TypeError, "x must be torch.float64 like base; got torch.float32"),
    (lambda: upsample_add(X, BLUR, BASE.to("meta")), ValueError, "base must be on the device of x"),
    (lambda: upsample_add(X[0], BLUR, BASE), ValueError, r"x must be \(B, C, H, W\)"),
    (lambda: upsample_add(X, BLUR, BASE, impl="gpu"), ValueError, "impl must be"),
]
CASES = {
    "upfirdn2d": UPFIRDN2D,
    "filter2d|upsample2d|downsample2d|setup_filter": HELPERS,
    "bias_act": BIAS_ACT,
    "noise_bias_act|upsample_add": FUSED,
}


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, cases in CASES.items() for case in range(len(cases))])
def test_errors_are_one_line(op: str, case: int) -> None:
    call, kind, words = CASES[op][case]
    with pytest.raises(kind, match=f"({op}): .*{words}") as caught:
        call()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
