"""IDATT: identity transfer by cross-attention of target queries on source keys (MAttFace eq. 4-10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from mattface.cuda_ops.precision import without_autocast
from mattface.errors import UsageError
from mattface.layers import resize
from mattface.vocabulary import FeaturePyramid

LEVELS = ("coarse", "medium", "fine")
CELLS = 0.21
"""Starting sharpness, per cell of the map's side: about one cell of an FFHQ crop in units of the mean face."""
BESIDE = 20.0
"""What a score loses beside the face."""


def position_grid(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Pixel-centre positions of a map, normalised to [-1, 1] over its extent, x before y: (H * W, 2)."""
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (H, W, 2)
    return grid.reshape(height * width, 2).to(dtype)


class IDATT(nn.Module):
    """Identity transfer at one feature level.

    Computes F_hat = gamma * out(softmax(Q_t K_s^T) V_s) + F_t (MAttFace eq. 4 and 5). The scores are not divided by the
    square root of the width, as in the paper; `out` is the 1x1 projection from C/4 back to C that eq. 5 needs.
    The attention weights are a dense correspondence: their expected source position per target position is a flow.

    With `canonical` (our addition) queries and keys also hold where on the mean face they lie: the scores fall by the
    squared distance there: (Q_t K_s^T) - b^2 |p_t - p_s|^2 with a learned b, and positions beside the face do not
    take part.

    Args:
        channels: C of the level.
        reduction: queries, keys and values have C // reduction channels.
        canonical: whether canonical coordinates (positions on the mean face) are given.
    """

    def __init__(self, channels: int, reduction: int = 4, canonical: bool = False) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.zeros(())) if canonical else None
        width = channels // reduction
        self.query = nn.Conv2d(channels, width, 1)
        self.key = nn.Conv2d(channels, width, 1)
        self.value = nn.Conv2d(channels, width, 1)
        self.out = nn.Conv2d(width, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(
        self, source: torch.Tensor, target: torch.Tensor, coordinates: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Moves the source's identity into the target's features.

        Args:
            source: (B, C, H', W') features of the source.
            target: (B, C, H, W) features of the target.
            coordinates: (B, 3, H', W') and (B, 3, H, W) of `mattface.mesh.shape.canonical_coordinates`, source and
                target.

        Returns:
            (B, C, H, W) features with the source's identity, and (B, 2, H, W) float32 flow: for every target position
            the expected source position, x and y in [-1, 1].
        """
        b, _, h, w = target.shape
        # float32 whatever the network runs in: eight bits of mantissa cannot tell neighbouring positions apart.
        maps = (self.query(target), self.key(source), self.value(source))
        q, k, v = (x.float().flatten(2).transpose(1, 2) for x in maps)  # (B, N, C/4)
        where = position_grid(source.shape[2], source.shape[3], v.device, v.dtype).expand(b, -1, -1)
        v = torch.cat([v, where], dim=-1)  # (B, N, C/4 + 2): values and positions share one attention
        if self.sharpness is not None and coordinates is not None:
            near_q, near_k = self._near(*coordinates)
            q, k, v = torch.cat([q, near_q], 2), torch.cat([k, near_k], 2), F.pad(v, (0, 2))
        else:  # fused attention wants one width for all three; added zeros do not change the products
            q, k = F.pad(q, (0, 2)), F.pad(k, (0, 2))
        with without_autocast(target.device):
            moved = F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), scale=1.0)
        moved = moved.squeeze(1).transpose(1, 2).reshape(b, -1, h, w)
        width = self.value.out_channels
        values, flow = moved[:, :width].to(target.dtype), moved[:, width : width + 2]
        return self.gamma * self.out(values) + target, flow

    def _near(self, source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 4) parts of queries and keys whose product is -b^2 |p_t - p_s|^2 but for what all keys share."""
        if self.sharpness is None:
            raise UsageError("this IDATT was built without canonical coordinates.")
        (s, covered), (t, _) = ((x.float().flatten(2).transpose(1, 2).split([2, 1], 2)) for x in (source, target))
        b = CELLS * source.shape[-1] * torch.exp(self.sharpness)
        length = (b * s).square().sum(-1, keepdim=True) + BESIDE * (1 - covered)
        query = torch.cat([2 * b * t, torch.ones_like(covered), torch.zeros_like(covered)], 2)
        return query, torch.cat([b * s, -length, torch.zeros_like(covered)], 2)


class PyramidIDATT(nn.Module):
    """IDATT at the coarse, medium and fine level (MAttFace eq. 8-10).

    Args:
        channels: C of coarse, medium and fine.
        levels: levels that transfer; a level left out passes the target's features on (ablation of table 2).
        canonical: see `IDATT`.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (128, 256, 512),
        levels: tuple[str, ...] = LEVELS,
        canonical: bool = False,
    ) -> None:
        super().__init__()
        unknown = set(levels) - set(LEVELS)
        if unknown:
            raise ValueError(f"levels must be among {LEVELS}; got {sorted(unknown)}.")
        self.levels = nn.ModuleDict(
            {n: IDATT(c, canonical=canonical) for n, c in zip(LEVELS, channels, strict=True) if n in levels}
        )

    def forward(
        self,
        source: FeaturePyramid,
        target: FeaturePyramid,
        coordinates: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[FeaturePyramid, dict[str, torch.Tensor]]:
        """The target's pyramid with the source's identity, and the flow of each level that transfers.

        Args:
            source, target: features of both faces.
            coordinates: (B, 3, S, S) of `mattface.mesh.shape.canonical_coordinates` of source and target, or None.
        """
        swapped, flows = {}, {}
        for name in LEVELS:
            s, t = getattr(source, name), getattr(target, name)
            if name in self.levels:
                near = None
                if coordinates is not None:
                    near = tuple(resize(x, f.shape[-1]) for x, f in zip(coordinates, (s, t), strict=True))
                swapped[name], flows[name] = self.levels[name](s, t, near)
            else:
                swapped[name] = t
        return FeaturePyramid(**swapped), flows
