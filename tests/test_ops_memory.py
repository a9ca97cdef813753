"""The pool of large CPU results: used again once nobody holds them, never before."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from mattface.cuda_ops import _packing, _pool, modulated_conv2d, release_memory

LARGE = (_pool.POOLED_FROM,)


@pytest.fixture(autouse=True)
def empty_pool() -> Iterator[None]:
    release_memory()
    yield
    release_memory()


def take(size: tuple[int, ...] = LARGE) -> torch.Tensor:
    return _pool.empty(size, torch.uint8, torch.contiguous_format, torch.device("cpu"))


def test_dropped_memory_is_used_again() -> None:
    place = (first := take()).data_ptr()
    del first
    assert take().data_ptr() == place


@pytest.mark.parametrize("hold", [lambda t: t, lambda t: t[5:9], lambda t: t.numpy(), lambda t: t.untyped_storage()])
def test_held_memory_is_not(hold) -> None:  # type: ignore[no-untyped-def]
    first = take()
    place, held = first.data_ptr(), hold(first)
    del first
    second = take()
    assert second.data_ptr() != place
    del held
    assert take().data_ptr() == place


def test_memory_saved_for_a_gradient_is_not() -> None:
    x = torch.ones(_pool.POOLED_FROM // 4, requires_grad=True)
    saved = _pool.empty_like(x.detach()).fill_(3)
    y = x * saved
    place = saved.data_ptr()
    del saved
    assert _pool.empty_like(x.detach()).fill_(7).data_ptr() != place
    assert float(torch.autograd.grad(y.sum(), x)[0].max()) == 3


def test_strides_are_kept() -> None:
    x = torch.empty(1, 64, 256, 256).contiguous(memory_format=torch.channels_last)
    assert _pool.empty_like(x).stride() == x.stride()
    assert _pool.empty_like(x[:, :, ::2].transpose(1, 2)).shape == (1, 128, 64, 256)


def test_idle_memory_is_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "KEPT", 3 * _pool.POOLED_FROM)
    for size in (1, 3, 7, 15, 31):
        take((size * _pool.POOLED_FROM,))
    held = take((2 * _pool.POOLED_FROM,))
    assert sum(b.size for b in _pool._buffers if b.idle()) <= _pool.KEPT
    release_memory()
    assert [b.size for b in _pool._buffers] == [held.nbytes]


def test_small_results_are_fresh() -> None:
    take((100,))
    assert not _pool._buffers


def test_threads_never_share() -> None:
    wrong = []

    def work(value: int) -> None:
        for _ in range(20):
            mine = take().fill_(value)
            if not bool((mine == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_everything_kept_is_given_back() -> None:
    weight = torch.nn.Parameter(torch.randn(16, 8, 3, 3), requires_grad=False)
    x = torch.randn(1, 8, 4, 4)
    first = modulated_conv2d(x, weight, torch.ones(1, 8), modulate="input")
    take()
    assert weight in _packing._KEPT
    assert _pool._buffers
    release_memory()
    assert weight not in _packing._KEPT
    assert not _pool._buffers
    assert torch.equal(modulated_conv2d(x, weight, torch.ones(1, 8), modulate="input"), first)
