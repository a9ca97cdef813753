"""Where an identity network looks at training pictures that come without landmarks: read off their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mattface.embed.resnet import CHIP_POINTS, SIZE, chip_matrix
from mattface.errors import UsageError
from mattface.geometry import sample
from mattface.mesh import topology
from mattface.training import losses
from mattface.training.judges import Frozen

ASKED = sorted(point for group in CHIP_POINTS for point in group)
"""Points of the mesh that a face chip is framed by."""


def meshes_at(places: torch.Tensor, size: int) -> torch.Tensor:
    """(B, 468, 3) meshes in pixels of pictures; only the points of `ASKED` are set, each to the nearest pixel.

    Args:
        places: (B, 3, s, s) of `mattface.mesh.shape.canonical`.
        size: side of the pictures.
    """
    mean = torch.from_numpy(topology().mean[ASKED, :2]).to(places)
    side = places.shape[-1]
    apart = (places[:, None, :2] - mean[None, :, :, None, None]).square().sum(2)  # B, K, S, S
    nearest = apart.flatten(2).argmin(2)
    meshes = places.new_zeros(len(places), 468, 3)
    meshes[:, ASKED, 0] = (nearest % side).to(places) + 0.5
    meshes[:, ASKED, 1] = (nearest // side).to(places) + 0.5
    return meshes * (size / side)


@dataclass(frozen=True)
class Framed:
    """Pictures with what an identity network is told about them.

    Attributes:
        pixels: (B, 3, S, S) in [-1, 1].
        places: (B, 3, s, s) of `mattface.mesh.shape.canonical`.
    """

    pixels: torch.Tensor
    places: torch.Tensor


def identities(judges: Frozen, faces: Framed) -> torch.Tensor:
    """(B, D) unit identities; gradients reach the pixels.

    Args:
        judges: with an identity network that frames faces by landmarks.
        faces: whose.
    """
    meshes = meshes_at(faces.places, faces.pixels.shape[-1])
    return judges.embed(faces.pixels, meshes, meshes[:, :5, :2])


def likeness_loss(judges: Frozen, found: Framed, truths: Sequence[Framed]) -> torch.Tensor:
    """Mean distance of the identity of pictures from those of others, each (B, ...)."""
    with torch.no_grad():
        wanted = [identities(judges, truth) for truth in truths]
    made = identities(judges, found)
    return torch.stack([losses.identity_loss(made, truth) for truth in wanted]).mean()


def chip_loss(judges: Frozen, found: torch.Tensor, truth: Framed) -> torch.Tensor:
    """`mattface.training.losses.perceptual_loss`, first power, of the faces alone, framed as for identity.

    Args:
        judges: with a feature network, and an identity network whose framing is used.
        found: (B, 3, S, S), where the truth's places are.
        truth: what it should look like.
    """
    if judges.identity is None or judges.features is None:
        raise UsageError("chips need judges of identity and features; the recipe loaded others.")
    meshes = meshes_at(truth.places, found.shape[-1]).cpu().double().numpy()
    matrices = torch.stack([torch.from_numpy(chip_matrix(mesh)) for mesh in meshes])
    chips = [sample(x.float(), matrices, SIZE) for x in (found, truth.pixels)]
    return losses.perceptual_loss(judges.features, chips[0], chips[1], power=1)
