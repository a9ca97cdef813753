"""Losses of a swap that use a network: identity, perceptual features, 3D shape, and what CLIP sees."""

from __future__ import annotations

import numpy as np
import torch

from mattface.embed import Embedder
from mattface.embed.resnet import CHIP_TEMPLATE, PADDING, SIZE
from mattface.geometry import HALF, similarity
from mattface.training import losses
from mattface.training.config import SwapRecipe
from mattface.training.data.face_batch import FaceBatch
from mattface.training.losses.networks.loading import LoadedNetworks
from mattface.training.losses.networks.toy import Encoders
from mattface.training.task import Terms

NETWORK_OF_LOSS = {
    "identity": "identity",
    "perceptual": "perceptual",
    "clip_text": "clip",
    "clip_identity": "clip",
    "shape": "shape",
}
"""Loss -> kind of network it uses."""


def networks_needed(recipe: SwapRecipe) -> set[str]:
    """Kinds of loss networks that a recipe needs; what takes an embedding of the source needs "identity" for it."""
    found = {NETWORK_OF_LOSS[name] for name in recipe.weights() if name in NETWORK_OF_LOSS}
    return found | {"identity"} if recipe.source == "embedding" else found


class NetworkLosses:
    """A recipe's losses that use a network.

    Args:
        recipe: says which of them count, and how.
        networks: those that they use.
    """

    def __init__(self, recipe: SwapRecipe, networks: LoadedNetworks) -> None:
        self.recipe, self.weights, self.networks = recipe, recipe.weights(), networks

    def embed(self, pictures: torch.Tensor, face: FaceBatch) -> torch.Tensor:
        """(B, D) identity of pictures framed like `face`."""
        embedder = self.networks.identity
        if embedder is None or self.networks.framing == "whole" or "mesh" in face or "landmarks" not in face:
            return self.networks.embed(pictures, face.get("mesh"), face.get("points"))
        matrices = [torch.from_numpy(framing_matrix(embedder, marks)) for marks in face["landmarks"].cpu().numpy()]
        return embedder.differentiable(pictures.float(), torch.stack(matrices))

    def terms(self, found: torch.Tensor, source: FaceBatch, target: FaceBatch) -> Terms:
        """Those that have a weight.

        Args:
            found: (B, 3, S, S) results in [-1, 1].
            source, target: what they were made of.
        """
        networks, wanted, terms = self.networks, self.weights, {}
        if "identity" in wanted:
            with torch.no_grad():
                truth = self.embed(source["image"], source)
            terms["identity"] = losses.identity_loss(self.embed(found, target), truth)
        if "perceptual" in wanted and networks.features is not None:
            terms["perceptual"] = self._perceptual(networks.features, found, target["image"])
        if "shape" in wanted and networks.shape is not None:
            with torch.no_grad():
                shape = networks.shape(source["image"])
            terms["shape"] = losses.shape_loss(networks.shape(found), shape)
        if wanted.keys() & {"clip_text", "clip_identity"} and networks.clip is not None:
            terms |= self._clip(networks.clip, found, source, target)
        return terms

    def _perceptual(self, features: losses.Features, found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        heads = self.networks.heads
        if heads is not None:
            return losses.lpips_loss(features, heads, found, target)
        return losses.perceptual_loss(features, found, target, self.recipe.power)

    def _clip(self, encoders: Encoders, found: torch.Tensor, source: FaceBatch, target: FaceBatch) -> Terms:
        """CLIP's losses; samples without an accepted caption take no part in the one on text."""
        terms: Terms = {}
        image, text = encoders
        seen = image(found)
        if "clip_identity" in self.weights:
            with torch.no_grad():
                truth = image(source["image"])
            terms["clip_identity"] = losses.clip_identity_loss(seen, truth)
        if "clip_text" in self.weights:
            captions = target.get("caption", ())
            chosen = [i for i, caption in enumerate(captions) if self._accepts(caption)]
            if not chosen:
                return terms | {"clip_text": seen.sum() * 0}
            with torch.no_grad():
                before = image(target["image"][chosen])
            terms["clip_text"] = self._text(seen[chosen], text([captions[i] for i in chosen]), before)
        return terms

    def _accepts(self, caption: str) -> bool:
        """Whether a caption is there and, where the recipe sets a limit, short enough."""
        most = self.recipe.caption_words
        return bool(caption) and (most is None or len(caption.split()) <= most)

    def _text(self, seen: torch.Tensor, words: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        if self.recipe.text == "margin":
            return losses.clip_text_margin_loss(seen, words, before)
        return losses.clip_text_loss(seen, words, before if self.recipe.text == "tau" else None)


def framing_matrix(embedder: Embedder, landmarks: np.ndarray) -> np.ndarray:
    """(3, 3) from a picture's pixels to an identity network's own crop, by (68, 2) landmarks (iBUG order)."""
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    if embedder.name != "resnet":  # eyes, nose tip, mouth corners
        return embedder.matrix(None, np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]]))
    five = landmarks[[36, 39, 45, 42, 33]].astype(np.float64) - 0.5  # the very points of its template
    return similarity(five, (CHIP_TEMPLATE + PADDING) / (1 + 2 * PADDING) * SIZE) @ np.linalg.inv(HALF)
