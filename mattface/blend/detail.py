"""The source's own pixels in the light of the decoder's picture (our addition to MAttFace, option `detail`).

With a `Correspondence` the source's features and pixels join the blend through its flow: light and colour of the result
are the decoder's, detail is the source's where it shows what is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from mattface.blend import View, whole
from mattface.layers import Window, resize, warp
from mattface.light import apply_light, blur_map, light_change, tint
from mattface.vocabulary import Correspondence


@dataclass(frozen=True)
class DetailConfig:
    """Settings of the transfer of detail, chosen on held-out portraits for mattface-demo.

    Attributes:
        light_side: side of the copies of which the change of light is made.
        light_blur: standard deviation, over the side, of the blur under which the decoder's picture says how bright the
            face is.
        trusted: confidence up to which a pixel is the decoder's, and from which on it is the source's; in between they
            mix, which blurs.
        lent: share of the target's own detail that the decoder's picture borrows, which is smooth by itself.
        lent_blur: standard deviation, over the side, of the blur that is taken off to find that detail.
        far: change of light, natural logarithm, from which on colour is the decoder's: a lifted shadow shows blotches.
    """

    light_side: int = 64
    light_blur: float = 1 / 16
    trusted: tuple[float, float] = (0.3, 0.6)
    lent: float = 0.5
    lent_blur: float = 1 / 32
    far: float = 0.7


class DetailTransfer(nn.Module):
    """Features and pixels of the source for the blend; nothing is trained here.

    Args:
        config: see there.
    """

    def __init__(self, config: DetailConfig) -> None:
        super().__init__()
        self.config = config

    def features(
        self, source: dict[int, torch.Tensor], match: Correspondence, r: int, view: View = whole
    ) -> torch.Tensor:
        """(B, C + 1, R, R) the source's features of one resolution where the target needs them, and the confidence.

        Args:
            source: resolution -> features of the source crop from the blend's encoder.
            match: correspondence.
            r: resolution.
            view: the part that is made.
        """
        confidence = view(resize(match.confidence, r)).to(source[r].dtype)
        return torch.cat([warp(source[r], view(resize(match.flow, r))) * confidence, confidence], 1)

    def forward(
        self,
        pictures: dict[int, torch.Tensor],
        source: torch.Tensor,
        target: torch.Tensor,
        match: Correspondence,
        matte: torch.Tensor,
        view: View = whole,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The source's pixels in the light of the decoder's picture, mixed with that picture by confidence.

        Args:
            pictures: of `Blended`; those up to `Window.GRID` are whole.
            source, target: (B, 3, S, S) crops in [-1, 1].
            match: correspondence.
            matte: (B, 1, s, s) of the flow's resolution.
            view: the part of the highest resolution that was made.

        Returns:
            (B, 3, s, s) pixels of that part, and "flow", "warped" and "confidence" of it.
        """
        size, config = max(pictures), self.config
        decoded = pictures[size].float()
        flow, small = view(resize(match.flow, size)), min(config.light_side, match.flow.shape[-1])
        warped = warp(resize(source, size).float(), flow, "bicubic").clamp(-1, 1)
        early = pictures[max((r for r in pictures if r <= Window.GRID), default=min(pictures))].float()
        seen = warp(resize(source, small).float(), resize(match.flow, small))
        weight = resize(matte * match.confidence, small)
        light = light_change(seen, resize(early, small), weight, config.light_blur * small)
        change = view(F.interpolate(light, (size, size), mode="bicubic", align_corners=False))
        lit = tint(apply_light(warped, change), decoded, (change.abs().mean(1, keepdim=True) / config.far).clamp(0, 1))
        confidence = view(resize(match.confidence, size))
        low, high = config.trusted
        share = ((confidence - low) / (high - low)).clamp(0, 1)
        borrowed = config.lent * view(self.fine_detail(resize(target, size).float(), matte))
        pixels = share * lit + (1 - share) * (decoded + borrowed)
        return pixels, {"flow": flow, "warped": lit, "confidence": confidence}

    def fine_detail(self, image: torch.Tensor, matte: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) a target without its low frequencies; those are the matte's alone, not of what lies beside."""
        side = min(self.config.light_side, image.shape[-1])
        weight = resize(matte.float(), side) + 1e-3
        sigma = self.config.lent_blur * side
        low = blur_map(resize(image, side) * weight, sigma) / blur_map(weight, sigma)
        return image - F.interpolate(low, image.shape[-2:], mode="bicubic", align_corners=False)


def restrict(match: Correspondence, visible: torch.Tensor | None) -> Correspondence:
    """A correspondence that trusts the source only where it shows the face itself: what covers it is not brought along.

    Args:
        match: from the source's features.
        visible: (B, 1, s, s) in [0, 1] over the source crop; None where that is not known, as in training, whose
            pictures show the whole face.
    """
    if visible is None:
        return match
    return replace(match, confidence=match.confidence * warp(visible, match.flow))
