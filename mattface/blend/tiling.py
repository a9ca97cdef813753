"""The blend computed only around the matte: fine levels of a megapixel cost what the face covers."""

from __future__ import annotations

import torch

from mattface.blend import Blended, Extra, State, TwoStageBlend, whole
from mattface.layers import Window, resize
from mattface.vocabulary import GeneratorFeatures

MARGIN = 8
"""Room left around the matte, in 128ths of the side: the convolutions at all finer levels reach less far."""


def blend_inside(
    blend: TwoStageBlend,
    window: Window,
    side: GeneratorFeatures,
    target: torch.Tensor,
    mask: torch.Tensor,
    extra: Extra | None = None,
    upto: int | None = None,
) -> Blended:
    """`TwoStageBlend.forward` with levels above `Window.GRID` made inside a window alone.

    Args:
        blend: the module.
        window: the part, with `MARGIN` around what is wanted.
        side, target, mask, extra, upto: see `TwoStageBlend.forward`; maps are whole.

    Returns:
        Maps and pictures above the grid are of the window.
    """
    state: State | None = None
    logits, pictures = {}, {}
    for r in blend.resolutions(upto):
        fine = r > Window.GRID
        if r == 2 * Window.GRID and state is not None:
            state = window.cut(state[0]), window.cut(state[1])
        view = window.cut if fine else whole
        features = blend.encoder.at(r, view(target), r * window.side // Window.GRID if fine else r)
        more = None if extra is None else extra(r, view)
        state, logits[r] = blend.level(r, state, view(side.features[r]), features, view(resize(mask, r)), more)
        pictures[r] = state[1]
    return Blended(pictures[max(pictures)].float(), logits, pictures)
