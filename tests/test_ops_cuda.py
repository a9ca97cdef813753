"""The CUDA kernels: on a GPU (pytest -m gpu), and without one their arithmetic on the CPU, thread after thread.

The latter is cuda.cu compiled as C++, where shared memory starts as NaN, and reads and writes out of a local array, at
an unaligned address, or with an overflowing index end the process.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seeded import seeded_input

from mattface.cuda_ops import _bias_act, _build, _implementations, _upfirdn2d, fused, setup_filter
from mattface.cuda_ops._bias_act import bias_act
from mattface.cuda_ops._upfirdn2d import upfirdn2d
from mattface.cuda_ops.fused import noise_bias_act, upsample_add

GOLDEN = Path(__file__).parent / "golden"
CASES = json.loads((GOLDEN / "ops_cases.json").read_text())
VALUES = np.load(GOLDEN / "ops.npz")
BLUR = setup_filter([1, 3, 3, 1])
LAYOUTS = [torch.contiguous_format, torch.channels_last]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
NO_GPU = "no GPU: torch.cuda.is_available() is False"
gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)]
emulated = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="needs g++ on Linux"),
]
WHERE = [pytest.param("cpu", marks=emulated), pytest.param("cuda", marks=gpu)]
TRAPS = "bounds,signed-integer-overflow,alignment,shift,null"


@pytest.fixture(scope="module")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """torch.ops.mattface_emulated: the kernels of cuda.cu for CPU tensors."""
    made = tmp_path_factory.mktemp("emulation") / "emulation.so"
    torch_folder = Path(torch.__file__).parent
    command = ["g++", "-x", "c++", "-O1", "-fPIC", "-shared", *_build.COMMON[1:], "-Wno-unknown-pragmas"]
    command += [f"-fsanitize={TRAPS}", "-fsanitize-undefined-trap-on-error", "-DMATTFACE_NAMESPACE=mattface_emulated"]
    command += ["-isystem", str(torch_folder / "include"), str(_build.SOURCES / "cuda.cu"), "-o", str(made)]
    command += [f"-L{torch_folder / 'lib'}", "-ltorch_cpu", "-ltorch", "-lc10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    torch.ops.load_library(str(made))
    return torch.ops.mattface_emulated


@pytest.fixture(params=WHERE)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the CUDA kernels run. On the CPU the ops are told to take the emulation for native."""
    if request.param == "cpu":
        kernels = request.getfixturevalue("emulation")
        for module in (_upfirdn2d, _bias_act, fused):
            monkeypatch.setattr(module, "native", lambda x: kernels)
            monkeypatch.setattr(module, "runs_native", lambda x: True)
    else:
        assert _implementations.runs_native(torch.zeros(1, device="cuda")), _implementations.missing("cuda")
    return str(request.param)


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference relative to the largest value; NaN counts as infinite."""
    assert got.shape == expected.shape
    off = (got.detach().double().cpu() - expected.detach().double().cpu()).abs()
    return float(off.nan_to_num(torch.inf).max() / expected.detach().abs().max().clamp_min(1e-30).cpu())


def close(got: torch.Tensor, expected: torch.Tensor, eps: float = 8) -> bool:
    return error(got, expected) < eps * torch.finfo(got.dtype).eps


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(VALUES[name]).double()


def leaf(tag: str, shape: list[int], device: str) -> torch.Tensor:
    return seeded_input(tag, shape).double().to(device).requires_grad_()


@pytest.mark.parametrize("group", sorted({case["filter"] for case in CASES["upfirdn2d"]}))
def test_upfirdn2d_golden(group: str, device: str) -> None:
    for case in (case for case in CASES["upfirdn2d"] if case["filter"] == group):
        k = case["id"]
        f = None if group == "none" else torch.from_numpy(VALUES[f"filter_{group}"]).to(device)
        x = leaf(f"up{k}", case["shape"], device)
        y = upfirdn2d(x, f, case["up"], case["down"], case["padding"], case["flip_filter"], case["gain"])
        (gx,) = torch.autograd.grad(y, x, seeded_input(f"upg{k}", y.shape).double().to(device))
        assert error(y, golden(f"upfirdn_{k}_y")) < 1e-5, case
        assert error(gx, golden(f"upfirdn_{k}_gx")) < 1e-5, case


@pytest.mark.parametrize("case", CASES["bias_act"], ids=lambda case: f"{case['id']}-{case['act']}")
def test_bias_act_golden(case: dict, device: str) -> None:
    k, dim = case["id"], case["dim"]
    x, b = leaf(f"ba{k}", case["shape"], device), leaf(f"bb{k}", [case["shape"][dim]], device)
    y = bias_act(x, b, dim, case["act"], gain=case["gain"], clamp=case["clamp"])
    gx, gb = torch.autograd.grad(y, (x, b), seeded_input(f"bag{k}", y.shape).double().to(device))
    for name, value in (("y", y), ("gx", gx), ("gb", gb)):
        assert error(value, golden(f"biasact_{k}_{name}")) < 1e-5, name


RESAMPLE: list[tuple[list, dict]] = [
    ([1, 3, 3, 1], {"padding": [1, 2, 2, 1]}),
    ([1, 3, 3, 1], {"up": 2, "padding": [2, 1, 2, 1], "gain": 4.0}),
    ([1, 2, -1, 5], {"up": 2, "padding": [-1, 2, 1, -3], "flip_filter": True}),
    ([1, 3, 3, 1], {"down": 2, "padding": [1, 1, 0, 2]}),
    ([1, 2, -1, 5], {"up": [2, 3], "down": [3, 2], "padding": [-1, 3, 2, -1]}),
    ([[1, 2, 5], [-1, 4, 3]], {"up": 2, "padding": 1}),
    (list(range(1, 13)), {"up": 2, "down": 3, "padding": [8, 5, 7, 6], "gain": -0.5}),
]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", range(len(RESAMPLE)))
def test_upfirdn2d_every_kernel(number: int, dtype: torch.dtype, layout: torch.memory_format, device: str) -> None:
    """Sizes beyond one block, odd and even, whole vectors of channels and not."""
    taps, options = RESAMPLE[number]
    f = setup_filter(taps, device, normalize=False, gain=1 / 16, separable=len(taps) > 8)
    for channels, height, width in ((3, 37, 133), (16, 19, 66), (72, 5, 9), (1, 33, 64)):
        x = seeded_input("x", (2, channels, height, width)).to(dtype).to(device).contiguous(memory_format=layout)
        y = upfirdn2d(x, f, **options)
        assert y.is_contiguous(memory_format=layout)
        assert close(y, upfirdn2d(x.double(), f, impl="reference", **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides(dtype: torch.dtype, device: str) -> None:
    whole = seeded_input("x", (4, 16, 20, 24)).to(dtype).to(device)
    last = whole.contiguous(memory_format=torch.channels_last)
    views = [whole[:, ::3, 1:, ::2], whole.transpose(2, 3), last[1:, 1:, 2:, 3:], last[:, :, ::2, 1::2], whole.flip(0)]
    views += [whole[:1].expand(3, -1, -1, -1), whole[:, :, :, :1].expand(-1, -1, -1, 9), last[:, 8:]]
    for x in views:
        for taps, options in RESAMPLE[:4]:
            f = setup_filter(taps, device)
            assert close(upfirdn2d(x, f, **options), upfirdn2d(x.double(), f, impl="reference", **options))
        assert close(bias_act(x, act="lrelu"), bias_act(x.double(), act="lrelu", impl="reference"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_beside_the_tensors_is_used(dtype: torch.dtype, device: str) -> None:
    """x lies between NaN, which a read beside it would spread; what lies beside y stays."""
    for layout in LAYOUTS:
        for start in (8, 3):  # aligned and not
            x = torch.full((4096,), torch.nan, dtype=dtype, device=device)
            inner = x[start : start + 2 * 8 * 7 * 12].view(2, 8, 7, 12)
            if layout == torch.channels_last:
                inner = inner.view(2, 7, 12, 8).permute(0, 3, 1, 2)
            inner.copy_(seeded_input("x", (2, 8, 7, 12)))
            exact = inner.double()
            for taps, options in RESAMPLE:
                f = setup_filter(taps, device)
                padded = {"padding": 12} | options
                expected = upfirdn2d(exact, f, impl="reference", **padded)
                assert close(upfirdn2d(inner, f, **padded), expected)
            expected = noise_bias_act(exact, torch.ones(8, dtype=torch.float64, device=device))
            noise_bias_act(inner, torch.ones(8, dtype=dtype, device=device), overwrite=True)
            assert close(inner, expected)
            assert int(x.isnan().sum()) == x.numel() - inner.numel()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", list(_bias_act.ACTIVATIONS))
def test_bias_act_every_kernel(act: str, dtype: torch.dtype, layout: torch.memory_format, device: str) -> None:
    for shape in ((2, 3, 7, 11), (1, 24, 40, 52), (3, 2056, 3, 1)):
        x = seeded_input("x", shape).mul(3).to(dtype).to(device).contiguous(memory_format=layout)
        b = seeded_input("b", shape[1:2]).to(dtype).to(device)
        for options in ({}, {"clamp": 0.5, "gain": -1.5}):
            y = bias_act(x, b, act=act, **options)
            assert y.is_contiguous(memory_format=layout)
            assert close(y, bias_act(x.double(), b.double(), act=act, impl="reference", **options))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "noises", "act"), [(3, 0, "lrelu"), (35, 1, "relu"), (16, 2, "swish")])
@pytest.mark.parametrize("blur", [False, True])
def test_fused(blur, channels, noises, act, dtype, layout, device) -> None:  # type: ignore[no-untyped-def]
    """Parameters of other types than x, noise of one sample or of all, with and without a filter."""
    x = seeded_input("x", (2, channels, 9, 70)).to(dtype).to(device).contiguous(memory_format=layout)
    b, scale = (seeded_input(tag, shape).to(device) for tag, shape in (("b", (channels,)), ("s", (2, channels))))
    noise = (
        seeded_input("n", (noises, 1, 8, 69) if blur else (noises, 1, 9, 70)).to(dtype).to(device) if noises else None
    )
    strength = torch.tensor(0.3, dtype=dtype, device=device)
    f = BLUR.to(device)
    options: dict[str, Any] = {"f": f, "padding": 1, "filter_gain": 4.0} if blur else {}
    exact = upfirdn2d(x.double(), f, padding=1, gain=4, impl="reference") if blur else x.double()
    exact = exact * scale.double()[:, :, None, None]
    exact = exact if noise is None else exact + noise.double() * strength.double()
    exact = bias_act(exact, b.double(), act=act, clamp=0.8, impl="reference")
    for overwrite in (False, True):
        y = noise_bias_act(x.clone(), b.to(dtype), scale.to(dtype), noise, strength, act, 0.8, overwrite=overwrite,
                           **options)  # fmt: skip
        assert y.dtype == dtype
        assert float((y.double() - exact).abs().max()) < 30 * torch.finfo(dtype).eps


@pytest.mark.parametrize("layouts", [(a, b) for a in LAYOUTS for b in LAYOUTS])
@pytest.mark.parametrize("dtype", DTYPES)
def test_upsample_add(dtype: torch.dtype, layouts: tuple, device: str) -> None:
    for channels in (3, 16):
        x = seeded_input("x", (2, channels, 11, 35)).to(dtype).to(device).contiguous(memory_format=layouts[0])
        base = seeded_input("y", (2, channels, 22, 70)).to(dtype).to(device).contiguous(memory_format=layouts[1])
        f = BLUR.to(device)
        expected = base.double() + upfirdn2d(x.double(), f, 2, padding=[2, 1, 2, 1], gain=4, impl="reference")
        assert close(upsample_add(x, f, base.clone(memory_format=torch.preserve_format)), expected)


@pytest.mark.parametrize("strides", ["rows", "channels", "pixels"])
def test_offsets_beyond_32_bits(strides: str, device: str) -> None:
    """x is spread over four gigabytes, of which next to nothing is touched."""
    step = 2**28 + 8
    shape, stride = {
        "rows": ((1, 2, 9, 5), (64, 5, step, 1)),
        "channels": ((1, 9, 5, 4), (64, step, 4, 1)),
        "pixels": ((1, 8, 9, 4), (64, 1, step, 8)),
    }[strides]
    try:
        memory = torch.empty(8 * step + 4096, dtype=torch.bfloat16, device=device)
    except RuntimeError as error:
        pytest.skip(f"needs 4.3 GB: {error}")
    x = memory.as_strided(shape, stride)
    x.copy_(seeded_input("x", x.shape))
    layout = torch.channels_last if strides == "pixels" else torch.contiguous_format
    f, ones = BLUR.to(device), torch.ones(2, device=device)
    for taps, up, down in ((f, [2, 2], [1, 1]), (f, [1, 1], [2, 2]), (f, [1, 1], [1, 1]), (ones, [2, 2], [1, 1])):
        expected = upfirdn2d(x.double(), taps, up, down, 2, impl="reference")
        y = torch.empty(expected.shape, dtype=x.dtype, device=device, memory_format=layout)
        kernels = _upfirdn2d.native(x)
        kernels.upfirdn2d_(y, x, taps, up, down, [2] * 4, False, 1.0, False)
        assert close(y, expected)


def test_not_a_number_stays(device: str) -> None:
    x = torch.tensor([[torch.nan, torch.inf, -torch.inf, 2.0, -2.0]], device=device)
    for act in ("linear", "relu", "lrelu"):
        y, expected = (bias_act(x, act=act, gain=1.0, impl=impl) for impl in ("auto", "reference"))
        assert torch.equal(y.isnan(), expected.isnan())
        assert torch.equal(y[:, 1:], expected[:, 1:])
    assert bias_act(x, clamp=1.0)[0, 1:].tolist() == [1, -1, 1, -1]


def test_empty(device: str) -> None:
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4)):
        x = torch.zeros(shape, device=device)
        assert upfirdn2d(x, BLUR.to(device), padding=2).shape == (*shape[:2], 5, 5)
        assert bias_act(x, act="lrelu").shape == shape
        assert noise_bias_act(x, torch.zeros(shape[1], device=device)).shape == shape
    assert upfirdn2d(torch.zeros(1, 2, 0, 3, device=device), BLUR.to(device), padding=4).abs().sum() == 0


# Compiling and linking, which needs no GPU.


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on the PATH")
def test_compiles_links_and_loads_only_beside_cuda(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setattr(_build, "PREBUILT", tmp_path / "none")
    target = _build.Target("sm_90")
    library, compiled = _build.build(target)
    assert compiled
    assert target.found() == library
    content = library.read_bytes()
    for name in ("FilterPlanes", "FilterPixels", "FilterAny", "FinishPlanes", "FinishPixels"):
        assert f".nv.info._ZN8mattface3runINS_{len(name)}{name}I".encode() in content, name
    assert b"mattface_sm_90" in content
    loading = f"import torch; torch.ops.load_library({str(library)!r})"
    if torch.version.cuda is None:
        rejected = run_python(loading).stderr
        assert re.search(f"undefined symbol: ({'|'.join(OF_CUDA_TORCH)})", rejected), rejected
        registered(tmp_path, loading)


OF_CUDA_TORCH = ("aoti_torch_get_current_cuda_stream", "torch_c10_cuda_check_msg", "torch_c10_cuda_free_error_msg")


def run_python(script: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)


def registered(folder: Path, loading: str) -> None:
    """With stand-ins for what a CUDA torch has, and nothing else, the library loads and registers its ops for GPUs."""
    functions = " ".join(f"int {name}(void) {{ return 1; }}" for name in OF_CUDA_TORCH)
    (folder / "stand_in.c").write_text(functions)
    subprocess.run(["gcc", "-shared", "-fPIC", "stand_in.c", "-o", "stand_in.so"], cwd=folder, check=True)
    script = f"""
import ctypes
ctypes.CDLL({str(folder / "stand_in.so")!r}, mode=ctypes.RTLD_GLOBAL)
{loading}
for name in ("epilogue_", "upfirdn2d_", "upfirdn2d_epilogue_"):
    op = getattr(torch.ops.mattface_sm_90, name).default
    assert op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CUDA), name
    assert not op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CPU), name
    assert op._schema.is_mutable, name
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
