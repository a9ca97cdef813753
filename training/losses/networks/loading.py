"""Networks that losses use and that never train: identity, perceptual features, CLIP, 3D shape.

A recipe names them, and their weights are found by their cards (`mattface weights pull` or `adopt`). One that is not
here is rejected by name; it is replaced only if the recipe says by what (`mattface train RECIPE --set
loss_networks.perceptual=resnet-maps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mattface import perception, weights
from mattface.embed import Embedder
from mattface.errors import UsageError, WeightsError
from mattface.training.config import LossNetworks
from mattface.training.losses.networks.features import LPIPS_TAPS, VGG16, VGG_TAPS, FaceShape, ResNetMaps
from mattface.training.losses.networks.toy import Encoders, toy_clip, toy_shape
from mattface.training.task import Fallback
from mattface.weights.content import open_any
from mattface.weights.convert import official

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class LoadedNetworks:
    """Loss networks that were loaded; each attribute exists where the recipe's losses need it.

    Attributes:
        identity: Embedder.
        framing: see `mattface.training.config.LossNetworks`.
        features: pictures to a list of maps.
        heads: weights of LPIPS, or None.
        clip: (image encoder, text encoder): pictures, texts to (B, D).
        shape: pictures to (B, 80).
    """

    def __init__(
        self,
        identity: Embedder | None = None,
        framing: str = "whole",
        features: Callable[[torch.Tensor], Sequence[torch.Tensor]] | None = None,
        heads: Sequence[torch.Tensor] | None = None,
        clip: Encoders | None = None,
        shape: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.identity, self.framing = identity, framing
        self.features, self.heads, self.clip, self.shape = features, heads, clip, shape

    def embed(self, pictures: torch.Tensor, meshes: torch.Tensor | None, points: torch.Tensor | None) -> torch.Tensor:
        """(B, D) unit identity of crops; gradients reach the pictures.

        Args:
            pictures: (B, 3, S, S) in [-1, 1].
            meshes: (B, 468, 3) in pixels, for framing "own".
            points: (B, 5, 2) in pixels, for framing "own".
        """
        embedder = self.identity
        if embedder is None:
            raise UsageError("expected an identity network; the recipe loaded none. Give its losses a weight.")
        if self.framing == "whole":
            small = F.interpolate(
                pictures.float(), (embedder.size, embedder.size), mode="bilinear", antialias=True, align_corners=False
            )
            return F.normalize(embedder.network(small) - embedder.centre.to(small), dim=1)
        if meshes is None or points is None:
            raise UsageError('loss_networks.framing "own" needs landmarks; these samples have none. Set it to whole.')
        pairs = zip(meshes.cpu().double().numpy(), points.cpu().double().numpy(), strict=True)
        matrices = torch.stack([torch.from_numpy(embedder.matrix(mesh, five)) for mesh, five in pairs])
        return embedder.differentiable(pictures.float(), matrices)


OTHERWISE = {
    "identity": "--set loss_networks.identity=resnet takes another",
    "perceptual": "--set loss_networks.perceptual=resnet-maps replaces it",
    "clip": "--set loss.clip_text=0 --set loss.clip_identity=0 leaves its losses out",
    "shape": "--set loss.shape=0 leaves its loss out",
}
"""Kind of loss network -> what to do without it."""


def load_loss_networks(
    names: LossNetworks,
    needed: set[str],
    device: torch.device,
    fallback: Fallback | None = None,
    otherwise: Mapping[str, str] = OTHERWISE,
) -> LoadedNetworks:
    """Loads the networks that are needed.

    Args:
        names: the recipe's.
        needed: of "identity", "perceptual", "clip", "shape".
        device: where they run.
        fallback: what takes the place of a missing one; None rejects it.
        otherwise: kind of loss network -> what to do without it, for messages.

    Raises:
        WeightsError: one is not here; the message says how to give or replace it.
    """
    made: dict[str, Any] = {"framing": names.framing}
    for kind in sorted(needed):
        name = getattr(names, kind)
        try:
            made |= LOADERS[kind](name, device)
        except WeightsError as error:
            if fallback is None:
                raise WeightsError(f"the losses need the network {name} ({otherwise[kind]}): {error}") from error
            made |= fallback(kind, name, device)
    return LoadedNetworks(**made)


def freeze(embedder: Embedder) -> Embedder:
    """An embedder whose network does not train, and whose output has a gradient.

    Raises:
        WeightsError: its graph has none.
    """
    if not list(embedder.network.parameters()):
        raise WeightsError(
            f"training needs an identity network with a gradient; {embedder.name} is an ONNX graph. "
            "Set loss_networks.identity to arcface or resnet."
        )
    embedder.network.eval().requires_grad_(False)
    return embedder


def load_perceptual(name: str, device: torch.device) -> tuple[nn.Module, list[torch.Tensor] | None]:
    """Feature network and, for LPIPS, its heads.

    Raises:
        UsageError: no such network.
        WeightsError: weights that are not here, damaged, or others.
    """
    kind, _, file = name.partition(":")
    if kind == "resnet-maps":
        return ResNetMaps(freeze(perception.load("identity", "resnet", device)).network), None
    if kind not in ("vgg16", "lpips"):
        raise UsageError(f"loss_networks.perceptual must be vgg16, lpips or resnet-maps; got {name!r}.")
    network = VGG16(LPIPS_TAPS if kind == "lpips" else VGG_TAPS, 224 if kind == "vgg16" else None)
    state = open_any(Path(file)).parts.get("", {}) if file else official("vgg16")
    wanted = network.state_dict()
    weights.load_strictly(network, {k: v for k, v in state.items() if k in wanted}, "VGG16")
    return network.eval().requires_grad_(False).to(device), lpips_heads(device) if kind == "lpips" else None


def lpips_heads(device: torch.device) -> list[torch.Tensor]:
    """Weights of LPIPS' linear layers for VGG16, one (C,) per map.

    Raises:
        WeightsError: they are not here.
    """
    state = official("lpips-vgg")
    return [state[f"lin{k}.model.1.weight"].flatten().to(device) for k in range(len(LPIPS_TAPS))]


def load_clip(name: str, device: torch.device) -> Encoders:
    """CLIP's encoders, pictures and texts to (B, 512), by open_clip's network; or toys of their interface.

    Raises:
        UsageError: no such network.
        WeightsError: its weights are not here, or open_clip is not installed.
    """
    if name == "toy":
        return toy_clip(device)
    if name != "clip":
        raise UsageError(
            f"loss_networks.clip must be clip or toy; got {name!r}. Another file: mattface weights adopt FILE."
        )
    state = official("clip-vit-b32")
    if find_spec("open_clip") is None:
        raise WeightsError("CLIP needs open_clip; it is not installed. Type: pip install 'mattface[train]'")
    import open_clip

    model = open_clip.create_model("ViT-B-32-quickgelu")
    weights.load_strictly(model, state, "CLIP ViT-B/32")
    model = model.to(device).eval().requires_grad_(False)
    tokenize = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    mean = torch.tensor(CLIP_MEAN, device=device)[:, None, None]
    std = torch.tensor(CLIP_STD, device=device)[:, None, None]

    def image(pictures: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(pictures.float(), (224, 224), mode="bicubic", antialias=True, align_corners=False)
        return model.encode_image(((small + 1) / 2 - mean) / std)  # [0, 1] before the statistics, not [0, 255]

    def text(captions: Sequence[str]) -> torch.Tensor:
        with torch.no_grad():
            return model.encode_text(tokenize(list(captions)).to(device))

    return image, text


def load_shape(name: str, device: torch.device) -> nn.Module:
    """The 3D face regressor of MAttFace eq. 17, or a toy; it never trains.

    Raises:
        UsageError: no such network.
        WeightsError: its weights are not here, damaged, or others.
    """
    if name == "toy":
        return toy_shape(device)
    if name != "d3dfr":
        raise UsageError(f"loss_networks.shape must be d3dfr or toy; got {name!r}.")
    return FaceShape(perception.load("estimator", "deep3d", device)).eval()


def _perceptual(name: str, device: torch.device) -> dict[str, Any]:
    features, heads = load_perceptual(name, device)
    return {"features": features, "heads": heads}


LOADERS: dict[str, Callable[[str, torch.device], dict[str, Any]]] = {
    "identity": lambda name, device: {"identity": freeze(perception.load("identity", name, device))},
    "perceptual": _perceptual,
    "clip": lambda name, device: {"clip": load_clip(name, device)},
    "shape": lambda name, device: {"shape": load_shape(name, device)},
}
"""Kind of loss network -> what `LoadedNetworks` takes of it."""
