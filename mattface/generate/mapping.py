"""z -> w: StyleGAN2's mapping network (Karras et al. 2020)."""

from __future__ import annotations

import torch
from torch import nn

from mattface.errors import UsageError
from mattface.layers import EqualLinear


class MappingNetwork(nn.Module):
    """Normalises z and sends it through fully connected layers.

    Args:
        z_dim: size of z.
        w_dim: size of w.
        num_styles: copies of w returned.
        num_layers: fully connected layers.
        lr_multiplier: of their weights.
    """

    w_avg: torch.Tensor

    def __init__(
        self, z_dim: int = 512, w_dim: int = 512, num_styles: int = 18, num_layers: int = 8, lr_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.num_styles, self.num_layers = z_dim, w_dim, num_styles, num_layers
        for i in range(num_layers):
            layer = EqualLinear(w_dim if i else z_dim, w_dim, act="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: torch.Tensor, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> torch.Tensor:
        """Maps normal samples to styles.

        Args:
            z: (B, z_dim) normal samples; only their direction matters.
            truncation_psi: 1 keeps w, 0 gives the average style.
            truncation_cutoff: number of leading styles that are truncated; None truncates all.

        Returns:
            (B, num_styles, w_dim).
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise UsageError(f"MappingNetwork expects z of shape (B, {self.z_dim}); got {tuple(z.shape)}.")
        w = self.style(z)[:, None].repeat(1, self.num_styles, 1)
        if truncation_psi == 1:
            return w
        cut = self.num_styles if truncation_cutoff is None else truncation_cutoff
        return torch.cat((torch.lerp(self.w_avg, w[:, :cut], truncation_psi), w[:, cut:]), 1)

    def style(self, z: torch.Tensor) -> torch.Tensor:
        """(B, z_dim) to one w per sample, (B, w_dim), without truncation."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x
