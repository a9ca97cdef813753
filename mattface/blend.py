"""Two-stage post-processing: blends the generator's features into the target's under a soft mask, and decodes.

MAttFace section 3.2. The side image is thrown away; its feature maps are kept. The paper gives no layer sizes: encoder
and decoder take the generator's channel counts, the mask of every level is the inner face refined by a small
convolution, the decoder starts at the lowest resolution and adds each blended level.
With a `Correspondence` (option `detail`) the source's own features and pixels join the blend through its flow: light
and colour of the result are the decoder's, detail is the source's where it shows the place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from mattface.layers import Window, resize, start_at_zero, warp
from mattface.relight import blurred, change_of_light, relit, tinted
from mattface.vocabulary import Correspondence, GeneratorFeatures, Swap

FLOOR = 0.02
"""Matte values up to this become exactly 0, so that pixels outside the face are the target's own."""
LIGHT_SIDE = 64
"""Side of the copies of which the change of light is made."""
SMOOTH = 1 / 16
"""Standard deviation, over the side, of the blur under which the decoder's picture says how bright the face is."""
TRUSTED = (0.3, 0.6)
"""Confidence up to which a pixel is the decoder's, and from which on it is the source's: a mean of both is a blur."""
LENT = 0.5
"""Share of the target's own detail that the decoder's picture borrows: by itself that is smooth."""
FAR = 0.7
"""Change of light, natural logarithm, from which on colour is the decoder's: a shadow that is lifted shows blotches."""
DETAIL = 1 / 32
"""Standard deviation, over the side, of the blur without which the rest of a picture is detail."""
MARGIN = 8
"""Room left around the matte, in 128ths of the side: the convolutions at all finer levels reach less far."""


View = Callable[[torch.Tensor], torch.Tensor]
"""Whole maps to the part that is made."""


class SideEncoder(nn.Module):
    """Features of a crop with the shapes of the generator's blocks, one small stack per resolution.

    Every level reads the picture at its own resolution, so levels can be added without disturbing trained ones.

    Args:
        channels: resolution -> channels.
    """

    def __init__(self, channels: dict[int, int]) -> None:
        super().__init__()
        self.resolutions = sorted(channels)
        self.levels = nn.ModuleDict(
            {
                str(r): nn.Sequential(
                    nn.Conv2d(3, c, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(c, c, 3, padding=1), nn.LeakyReLU(0.2)
                )
                for r, c in channels.items()
            }
        )

    def forward(
        self, image: torch.Tensor, upto: int | None = None, window: Window | None = None
    ) -> dict[int, torch.Tensor]:
        """(B, 3, S, S) in [-1, 1] -> resolution -> (B, C, R, R), for R <= upto; a window's part above its grid."""
        found = {}
        for r in (r for r in self.resolutions if upto is None or r <= upto):
            part = window if r > Window.GRID else None
            small = resize(image, r) if part is None else resize(part.cut(image), r * part.side // Window.GRID)
            found[r] = self.levels[str(r)](small)
        return found


class MaskBlend(nn.Module):
    """Blends one level: side features inside a refined soft mask, target features outside.

    Args:
        channels: C of the level.
        detail: whether the source's own features join the side's.
    """

    def __init__(self, channels: int, detail: bool) -> None:
        super().__init__()
        self.refine = start_at_zero(nn.Conv2d(1 + 2 * channels, 1, 3, padding=1))
        self.from_source = nn.Conv2d(channels + 1, channels, 1) if detail else None

    def forward(
        self, side: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, source: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Blends (B, C, R, R) side into target under mask (B, 1, R, R).

        Args:
            source: (B, C + 1, R, R) warped source features and their confidence, or None.

        Returns:
            Blended features and the logit of the refined mask.
        """
        if self.from_source is not None and source is not None:
            side = side + self.from_source(source)
        prior = torch.logit(mask.float().clamp(0.01, 0.99))
        maps = [side, target, mask.to(side.dtype)]
        x = torch.cat([m.contiguous(memory_format=torch.channels_last) for m in maps], 1)
        logit = self.refine(x).float() + prior
        soft = torch.sigmoid(logit).to(side.dtype)
        return soft * side + (1 - soft) * target, logit


class DecoderLevel(nn.Module):
    """Up-samples what came from below, adds the blended level, and draws its share of the picture."""

    def __init__(self, below: int | None, channels: int) -> None:
        super().__init__()
        self.enter = None if below is None else nn.Conv2d(below, channels, 3, padding=1)
        self.mix = nn.Conv2d(channels, channels, 3, padding=1)
        self.to_rgb = start_at_zero(nn.Conv2d(channels, 3, 1))

    def forward(
        self, below: tuple[torch.Tensor, torch.Tensor] | None, level: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(features, rgb) of the level below and (B, C, R, R) -> (features, rgb) of this one."""
        x, size = level, level.shape[-1]
        if self.enter is not None and below is not None:
            x = x + self.enter(resize(below[0], size))
        x = F.leaky_relu(self.mix(F.leaky_relu(x, 0.2)), 0.2)
        rgb = self.to_rgb(x)
        return x, rgb if below is None else rgb + resize(below[1], size)


class TwoStageBlend(nn.Module):
    """Encoder, mask blending per resolution, decoder.

    Args:
        channels: resolution -> channels of the generator's blocks; the highest resolution is the output's.
        detail: whether a `Correspondence` is used.
    """

    def __init__(self, channels: dict[int, int], detail: bool = True) -> None:
        super().__init__()
        resolutions = sorted(channels)
        self.encoder = SideEncoder(channels)
        self.blends = nn.ModuleDict({str(r): MaskBlend(channels[r], detail) for r in resolutions})
        below = [None, *(channels[r] for r in resolutions[:-1])]
        self.decoder = nn.ModuleDict(
            {str(r): DecoderLevel(b, channels[r]) for r, b in zip(resolutions, below, strict=True)}
        )

    def forward(
        self,
        side: GeneratorFeatures,
        source: dict[int, torch.Tensor],
        source_image: torch.Tensor,
        target_image: torch.Tensor,
        mask: torch.Tensor,
        match: Correspondence | None,
        upto: int | None = None,
        tight: bool = False,
    ) -> Swap:
        """Blends and decodes.

        Args:
            side: the generator's feature maps.
            source: the source crop's features from `self.encoder` (empty when detail is off).
            source_image, target_image: (B, 3, S, S) crops in [-1, 1].
            mask: (B, 1, S, S) inner face of the target in [0, 1].
            match: correspondence, None when detail is off.
            upto: highest resolution to compute; None for all.
            tight: True computes levels above `Window.GRID` only around the matte of one crop (with detail), with equal
                pixels there but for rounding; elsewhere the matte is 0 and pixels are the target's.

        Returns:
            Swap of the highest resolution computed, with "decoded" (the decoder's picture), "matte_logit" and, with
            detail, "flow", "warped" and "confidence" among the extras, all of them of the part that was made.
        """
        state, extras, whole = None, {}, lambda x: x
        glance = target_image  # the finest picture that the decoder makes whole in either way
        window = Window.around(self.matte(match.matte), MARGIN) if tight and match is not None else None
        target = self.encoder(target_image, upto, window)
        for r, features in target.items():
            view = window.cut if window is not None and r > Window.GRID else whole
            if window is not None and r == 2 * Window.GRID and state is not None:
                state = window.cut(state[0]), window.cut(state[1])
            moved = None if match is None else self._moved(source, match, r, view)
            blended, logit = self.blends[str(r)](view(side.features[r]), features, view(resize(mask, r)), moved)
            extras[f"mask_logit_{r}"] = logit
            state = self.decoder[str(r)](state, blended)
            glance = state[1] if r <= Window.GRID else glance
        if state is None:
            raise ValueError(f"upto must be at least {min(map(int, self.blends))}; got {upto}.")
        extras["decoded"] = decoded = state[1].float()
        extras["matte_logit"] = logit if match is None else match.matte
        if match is None:
            return Swap(decoded, self.matte(logit), extras)
        borrowed = view(self._detail(resize(target_image, r).float(), match))
        pixels, more = self._with_detail(decoded, glance, LENT * borrowed, match, source_image, r, view)
        matte = resize(self.matte(match.matte), r)
        if view is not whole and window is not None:
            pixels = window.laid(pixels, resize(target_image, r))
        return Swap(pixels, matte, extras | more)

    @staticmethod
    def matte(logit: torch.Tensor) -> torch.Tensor:
        """Mask logit -> matte in [0, 1] that is exactly 0 where the face is not touched."""
        return ((torch.sigmoid(logit) - FLOOR) / (1 - 2 * FLOOR)).clamp(0, 1)

    @staticmethod
    def _moved(source: dict[int, torch.Tensor], match: Correspondence, r: int, view: View) -> torch.Tensor:
        confidence = view(resize(match.confidence, r)).to(source[r].dtype)
        return torch.cat([warp(source[r], view(resize(match.flow, r))) * confidence, confidence], 1)

    @classmethod
    def _detail(cls, image: torch.Tensor, match: Correspondence) -> torch.Tensor:
        """(B, 3, S, S) a target without its low frequencies; those are the matte's alone, not of what lies beside."""
        side = min(LIGHT_SIDE, image.shape[-1])
        weight = resize(cls.matte(match.matte).float(), side) + 1e-3
        low = blurred(resize(image, side) * weight, DETAIL * side) / blurred(weight, DETAIL * side)
        return image - F.interpolate(low, image.shape[-2:], mode="bicubic", align_corners=False)

    @classmethod
    def _with_detail(
        cls,
        decoded: torch.Tensor,
        glance: torch.Tensor,
        borrowed: torch.Tensor,
        match: Correspondence,
        source_image: torch.Tensor,
        size: int,
        view: View,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The source's pixels in the light of the decoder's picture, mixed with that picture by confidence.

        Args:
            decoded: (B, 3, s, s) the decoder's picture, of the part that is made.
            glance: (B, 3, S, S) the whole of it, of any resolution.
            borrowed: (B, 3, s, s) detail for where the source is not seen.
            match, source_image: see `forward`.
            size: side of the whole result.
            view: cuts the part out of its maps.
        """
        flow, small = view(resize(match.flow, size)), min(LIGHT_SIDE, match.flow.shape[-1])
        warped = warp(resize(source_image, size).float(), flow, "bicubic").clamp(-1, 1)
        seen = warp(resize(source_image, small).float(), resize(match.flow, small))
        weight = resize(cls.matte(match.matte) * match.confidence, small)
        light = change_of_light(seen, resize(glance.float(), small), weight, SMOOTH * small)
        change = view(F.interpolate(light, (size, size), mode="bicubic", align_corners=False))
        lit = tinted(relit(warped, change), decoded, (change.abs().mean(1, keepdim=True) / FAR).clamp(0, 1))
        confidence = view(resize(match.confidence, size))
        share = ((confidence - TRUSTED[0]) / (TRUSTED[1] - TRUSTED[0])).clamp(0, 1)
        pixels = share * lit + (1 - share) * (decoded + borrowed)
        return pixels, {"flow": flow, "warped": lit, "confidence": confidence}
