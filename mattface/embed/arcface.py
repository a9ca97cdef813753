"""112 px face -> identity direction: ArcFace networks (Deng et al. 2019), for scoring and as a differentiable loss.

Both read RGB in [-1, 1] and return unit vectors; their cosine compares two faces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mattface.errors import UsageError, WeightsError
from mattface.layers import IRSETrunk

SIZE = 112
"""Side of the ArcFace crop in pixels."""
WIDTHS = (64, 128, 256, 512)


def _check(image: torch.Tensor) -> None:
    """Rejects anything but a batch of ArcFace crops."""
    if image.ndim != 4 or image.shape[1:] != (3, SIZE, SIZE):
        raise UsageError(f"ArcFace networks expect (B, 3, {SIZE}, {SIZE}); got {tuple(image.shape)}. Align or resize.")


class IRSE50(nn.Module):
    """The IR-SE-50 identity network used by pSp.

    Args:
        widths: channels of the four stages.
        units: IR-SE units of the four stages.
        stem: channels after the first convolution.
        outputs: size of the embedding.
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS,
        units: Sequence[int] = (3, 4, 14, 3),
        stem: int = 64,
        outputs: int = 512,
    ) -> None:
        super().__init__()
        self.trunk = IRSETrunk(stem, widths, units)
        side = SIZE // 2 ** len(widths)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1] * side * side, outputs)
        self.norm_out = nn.BatchNorm1d(outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embeds faces.

        Args:
            image: (B, 3, 112, 112) RGB in [-1, 1].

        Returns:
            (B, outputs) of unit length.
        """
        _check(image)
        x = self.norm(self.trunk(image)[-1])
        return F.normalize(self.norm_out(self.linear(x.flatten(1))), dim=1)


class IResNetUnit(nn.Module):
    """Residual unit with batch norms around two convolutions; a unit that changes the shape has a 1x1 shortcut.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: 1 or 2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        self.shortcut_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else None
        self.shortcut_norm = nn.BatchNorm2d(outputs) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) to (B, outputs, H / stride, W / stride)."""
        short = x
        if self.shortcut_conv is not None and self.shortcut_norm is not None:
            short = self.shortcut_norm(self.shortcut_conv(x))
        x = self.act(self.norm2(self.conv1(self.norm1(x))))
        return self.norm3(self.conv2(x)) + short


class IResNet(nn.Module):
    """The improved ResNet of the public ArcFace releases.

    Args:
        units: units of the four stages; (3, 4, 14, 3) is IResNet-50, (3, 13, 30, 3) IResNet-100.
        widths: channels of the four stages.
        outputs: size of the embedding.
    """

    def __init__(
        self, units: Sequence[int] = (3, 4, 14, 3), widths: Sequence[int] = WIDTHS, outputs: int = 512
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        stages = []
        for inputs, width, count in zip((widths[0], *widths), widths, units, strict=False):
            rest = [IResNetUnit(width, width, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(IResNetUnit(inputs, width, 2), *rest))
        self.stages = nn.Sequential(*stages)
        side = SIZE // 2 ** len(widths)
        self.norm = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1] * side * side, outputs)
        self.norm_out = nn.BatchNorm1d(outputs)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Embeds faces.

        Args:
            image: (B, 3, 112, 112) RGB in [-1, 1], ArcFace template.

        Returns:
            (B, outputs) of unit length.
        """
        _check(image)
        x = self.norm(self.stages(self.stem(image)))
        return F.normalize(self.norm_out(self.linear(x.flatten(1))), dim=1)


def iresnet50() -> IResNet:
    """IResNet-50 of the public releases."""
    return IResNet((3, 4, 14, 3))


def iresnet_for(state: Mapping[str, torch.Tensor]) -> IResNet:
    """A network with as many units in each stage as a state dict in our names has.

    Raises:
        WeightsError: the state dict is not that of such a network.
    """
    units = [len({key.split(".")[2] for key in state if key.startswith(f"stages.{stage}.")}) for stage in range(4)]
    if 0 in units:
        raise WeightsError(f"expected an ArcFace ResNet of four stages; got units {units}. Check what the file holds.")
    return IResNet(units)
