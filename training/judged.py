"""Losses of a swap that networks judge: identity, perceptual features, shape, and what CLIP sees."""

from __future__ import annotations

import numpy as np
import torch

from mattface.embed import Embedder
from mattface.embed.resnet import CHIP_TEMPLATE, PADDING, SIZE
from mattface.errors import UsageError
from mattface.geometry import HALF, similarity
from mattface.training import losses
from mattface.training.judges import Frozen
from mattface.training.swapping import Side, SwapRecipe
from mattface.training.task import Terms

JUDGED = {
    "identity": "identity",
    "perceptual": "perceptual",
    "clip_text": "clip",
    "clip_identity": "clip",
    "shape": "shape",
}
"""Loss -> judge it needs."""
TEXTS = ("tau", "always", "margin")


class JudgedLosses:
    """A recipe's losses that ask a judge.

    Args:
        recipe: says which of them count, and how.
        judges: whom they ask.

    Raises:
        UsageError: no such form of the loss on text.
    """

    def __init__(self, recipe: SwapRecipe, judges: Frozen) -> None:
        if recipe.text not in TEXTS:
            raise UsageError(f"text must be one of {', '.join(TEXTS)}; got {recipe.text!r}.")
        self.recipe, self.weights, self.judges = recipe, recipe.weights(), judges

    def embed(self, pictures: torch.Tensor, face: Side) -> torch.Tensor:
        """Identity of pictures framed like `face`."""
        judge = self.judges.identity
        if judge is None or self.judges.framing == "whole" or "mesh" in face or "landmarks" not in face:
            return self.judges.embed(pictures, face.get("mesh"), face.get("points"))
        matrices = [torch.from_numpy(framing_of(judge, marks)) for marks in face["landmarks"].cpu().numpy()]
        return judge.differentiable(pictures.float(), torch.stack(matrices))

    def terms(self, found: torch.Tensor, source: Side, target: Side) -> Terms:
        """Those that have a weight.

        Args:
            found: (B, 3, S, S) results in [-1, 1].
            source, target: what they were made of.
        """
        judges, wanted, terms = self.judges, self.weights, {}
        if "identity" in wanted:
            with torch.no_grad():
                truth = self.embed(source["image"], source)
            terms["identity"] = losses.identity_loss(self.embed(found, target), truth)
        if "perceptual" in wanted and judges.features is not None:
            if judges.heads is not None:
                value = losses.lpips_loss(judges.features, judges.heads, found, target["image"])
            else:
                value = losses.perceptual_loss(judges.features, found, target["image"], self.recipe.power)
            terms["perceptual"] = value
        if "shape" in wanted and judges.shape is not None:
            with torch.no_grad():
                shape = judges.shape(source["image"])
            terms["shape"] = losses.shape_loss(judges.shape(found), shape)
        return terms | self._clip(found, source, target)

    def _clip(self, found: torch.Tensor, source: Side, target: Side) -> Terms:
        """CLIP's losses; samples without a caption take no part in the one on text."""
        wanted, terms = self.weights, {}
        if self.judges.clip is None:
            return {}
        image, text = self.judges.clip
        seen = image(found)
        if "clip_identity" in wanted:
            with torch.no_grad():
                truth = image(source["image"])
            terms["clip_identity"] = losses.clip_identity_loss(seen, truth)
        told = [i for i, caption in enumerate(target.get("caption", ())) if caption]
        if "clip_text" in wanted:
            words = text([target["caption"][i] for i in told]) if told else seen[:0].detach()
            with torch.no_grad():
                before = image(target["image"][told]) if told else words
            terms["clip_text"] = self._text(seen[told], words, before) if told else seen.sum() * 0
        return terms

    def _text(self, seen: torch.Tensor, words: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        if self.recipe.text == "margin":
            return losses.clip_text_margin_loss(seen, words, before)
        return losses.clip_text_loss(seen, words, before if self.recipe.text == "tau" else None)


def framing_of(embedder: Embedder, landmarks: np.ndarray) -> np.ndarray:
    """(3, 3) from a picture's pixels to an identity network's own crop, by (68, 2) landmarks (iBUG order)."""
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    if embedder.name != "resnet":  # eyes, nose tip, mouth corners
        return embedder.matrix(None, np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]]))
    five = landmarks[[36, 39, 45, 42, 33]].astype(np.float64) - 0.5  # the very points of its template
    return similarity(five, (CHIP_TEMPLATE + PADDING) / (1 + 2 * PADDING) * SIZE) @ np.linalg.inv(HALF)


def needs(recipe: SwapRecipe) -> set[str]:
    """Judges that must be here."""
    found = {JUDGED[name] for name in recipe.weights() if name in JUDGED}
    return found if recipe.network.startswith("mattface.methods.") else found | {"identity"}
