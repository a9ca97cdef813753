"""The crops of identity networks for training pictures without landmarks, from canonical coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mattface.embed.resnet import CHIP_POINTS, SIZE, chip_matrix
from mattface.errors import UsageError
from mattface.geometry import sample
from mattface.mesh import topology
from mattface.training import losses
from mattface.training.losses.networks.loading import LoadedNetworks

POINTS = sorted(point for group in CHIP_POINTS for point in group)
"""Points of the mesh that a face chip is framed by."""


def meshes_at(canonical: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 468, 3) meshes in pixels of pictures; only the points of `POINTS` are set, each to the nearest pixel.

    Args:
        canonical: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates`.
        size: size of the pictures.
    """
    mean = torch.from_numpy(topology().mean[POINTS, :2]).to(canonical)
    small = canonical.shape[-1]
    distance = (canonical[:, None, :2] - mean[None, :, :, None, None]).square().sum(2)  # B, K, S, S
    nearest = distance.flatten(2).argmin(2)
    meshes = canonical.new_zeros(len(canonical), 468, 3)
    meshes[:, POINTS, 0] = (nearest % small).to(canonical) + 0.5
    meshes[:, POINTS, 1] = (nearest // small).to(canonical) + 0.5
    return meshes * (size / small)


@dataclass(frozen=True)
class LocatedFaces:
    """Pictures with what says where their faces are.

    Attributes:
        pixels: (B, 3, S, S) in [-1, 1].
        canonical: (B, 3, s, s) of `mattface.mesh.shape.canonical_coordinates`.
    """

    pixels: torch.Tensor
    canonical: torch.Tensor


def identities(loss_networks: LoadedNetworks, faces: LocatedFaces) -> torch.Tensor:
    """(B, D) unit identities; gradients reach the pixels.

    Args:
        loss_networks: with an identity network that frames faces by landmarks.
        faces: whose.
    """
    meshes = meshes_at(faces.canonical, faces.pixels.shape[-1])
    return loss_networks.embed(faces.pixels, meshes, meshes[:, :5, :2])


def likeness_loss(loss_networks: LoadedNetworks, found: LocatedFaces, truths: Sequence[LocatedFaces]) -> torch.Tensor:
    """Mean distance of the identity of pictures from those of others, each (B, ...)."""
    with torch.no_grad():
        wanted = [identities(loss_networks, truth) for truth in truths]
    made = identities(loss_networks, found)
    return torch.stack([losses.identity_loss(made, truth) for truth in wanted]).mean()


def chip_loss(loss_networks: LoadedNetworks, found: torch.Tensor, truth: LocatedFaces) -> torch.Tensor:
    """`mattface.training.losses.perceptual_loss`, first power, of the faces alone, framed as for identity.

    Args:
        loss_networks: with a feature network, and an identity network whose framing is used.
        found: (B, 3, S, S), located as the truth is.
        truth: what it should look like.
    """
    if loss_networks.identity is None or loss_networks.features is None:
        raise UsageError("face chips need an identity network and a feature network; the recipe loaded others.")
    meshes = meshes_at(truth.canonical, found.shape[-1]).cpu().double().numpy()
    matrices = torch.stack([torch.from_numpy(chip_matrix(mesh)) for mesh in meshes])
    chips = [sample(x.float(), matrices, SIZE) for x in (found, truth.pixels)]
    return losses.perceptual_loss(loss_networks.features, chips[0], chips[1], power=1)
