"""Giving back what the ops keep for their next call."""

from __future__ import annotations

from mattface.cuda_ops import _packing, _pool, _upconv


def release_memory() -> None:
    """Gives back idle memory of large CPU results, packed copies of weights, and this thread's working memory.

    All of it is made again when it is next needed; results in use stay as they are.
    """
    _pool.release_idle()
    _packing.forget()
    _upconv.forget()
