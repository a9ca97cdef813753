"""Networks that losses ask and that never train: identity, perceptual features, CLIP, 3D shape.

A recipe names them. "NAME:FILE" gives a file. One that is not here is refused by name; it is replaced only if the
recipe says by what (`mattface train RECIPE --set judges.perceptual=resnet-maps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mattface import weights
from mattface.embed import Embedder, load_embedder
from mattface.errors import UsageError, WeightsError
from mattface.layers import resize
from mattface.training.stand_ins import stand_in

VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""VGG16's convolutions (Simonyan and Zisserman 2015, configuration D); 0 is a pooling."""
IMAGENET_MEAN, IMAGENET_SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VGG_TAPS = (3, 8, 15, 22)
"""ReLUs 1_2, 2_2, 3_3, 4_3 in torchvision's numbering: AlphaFace's script."""
LPIPS_TAPS = (3, 8, 15, 22, 29)


@dataclass(frozen=True)
class Judges:
    """Names of the networks.

    Attributes:
        identity: embedder ("arcface", "resnet"), gives codes and the identity loss.
        framing: "whole" gives it the whole crop, resized; "own" its own framing by landmarks.
        perceptual: "vgg16:FILE", "lpips:FILE" (FILE is torchvision's VGG16), or "resnet-maps" (features of the
            identity ResNet: a replacement).
        clip: "clip:FILE", a checkpoint of ViT-B/32 that open_clip reads.
        shape: "d3dfr": the 3D face regressor.
    """

    identity: str = "arcface"
    framing: str = "whole"
    perceptual: str = "vgg16"
    clip: str = "clip"
    shape: str = "d3dfr"


class Frozen:
    """Judges that were loaded; each attribute exists where the recipe's losses need it.

    Attributes:
        identity: Embedder.
        framing: see `Judges`.
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
        clip: tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Sequence[str]], torch.Tensor]] | None = None,
        shape: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if framing not in ("whole", "own"):
            raise UsageError(f"judges.framing must be whole or own; got {framing!r}.")
        self.identity, self.framing = identity, framing
        self.features, self.heads, self.clip, self.shape = features, heads, clip, shape

    def embed(self, pictures: torch.Tensor, meshes: torch.Tensor | None, points: torch.Tensor | None) -> torch.Tensor:
        """(B, D) unit identity of crops; gradients reach the pictures.

        Args:
            pictures: (B, 3, S, S) in [-1, 1].
            meshes: (B, 468, 3) in pixels, for framing "own".
            points: (B, 5, 2) in pixels, for framing "own".
        """
        judge = self.identity
        if judge is None:
            raise UsageError("expected an identity judge; the recipe loaded none. Give its losses a weight.")
        if self.framing == "whole":
            small = F.interpolate(
                pictures.float(), (judge.size, judge.size), mode="bilinear", antialias=True, align_corners=False
            )
            return F.normalize(judge.network(small) - judge.centre.to(small), dim=1)
        if meshes is None or points is None:
            raise UsageError('judges.framing "own" needs landmarks; these samples have none. Set it to whole.')
        pairs = zip(meshes.cpu().double().numpy(), points.cpu().double().numpy(), strict=True)
        matrices = torch.stack([torch.from_numpy(judge.matrix(mesh, five)) for mesh, five in pairs])
        return judge.differentiable(pictures.float(), matrices)


class VGG16(nn.Module):
    """Features of VGG16 after chosen layers, in torchvision's numbering and key names.

    Args:
        taps: layers whose outputs are returned; the last is where it ends.
        side: pictures are resized to this side; None leaves them.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, taps: Sequence[int] = VGG_TAPS, side: int | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in VGG_WIDTHS:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
            before = width or before
        self.features = nn.Sequential(*layers[: max(taps) + 1])
        self.taps, self.side = tuple(taps), side
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(IMAGENET_SPREAD)[:, None, None], persistent=False)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to one map per tap."""
        x = picture if self.side is None else resize(picture, self.side)
        x = ((x + 1) / 2 - self.mean) / self.spread
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


class ResNetMaps(nn.Module):
    """Feature maps of the identity ResNet, in place of VGG16 where a recipe says so.

    Args:
        network: `mattface.embed.resnet.IdentityResNet`.
        taps: residual blocks whose outputs are returned.
    """

    def __init__(self, network: Any, taps: Sequence[int] = (2, 6, 9)) -> None:
        super().__init__()
        self.network, self.taps = network, tuple(taps)

    def forward(self, picture: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) in [-1, 1] to the stem's map and one per tap, each of mean square about 1."""
        net = self.network
        x = ((resize(picture, 150) + 1) * 127.5 - net.mean) / 256
        x = F.relu(net.stem_affine(net.stem(x)))
        maps = [x]
        x = F.max_pool2d(x, 3, 2)
        for index, block in enumerate(net.blocks[: max(self.taps) + 1]):
            x = block(x)
            if index in self.taps:
                maps.append(x)
        return [m / m.detach().square().mean().sqrt().clamp_min(1e-6) for m in maps]


def load_judges(names: Judges, needed: set[str], device: torch.device) -> Frozen:
    """Loads the networks that are needed.

    Args:
        names: the recipe's.
        needed: of "identity", "perceptual", "clip", "shape".
        device: where they run.

    Raises:
        WeightsError: one is not here; the message says how to give or replace it.
    """
    made: dict[str, Any] = {"framing": names.framing}
    for kind in sorted(needed):
        name = getattr(names, kind)
        try:
            made |= LOADERS[kind](name, device)
        except WeightsError:
            replaced = stand_in(kind, name, device)
            if replaced is None:
                raise
            made |= replaced
    return Frozen(**made)


def still(embedder: Embedder) -> Embedder:
    """An embedder whose network does not train, and whose output has a gradient.

    Raises:
        WeightsError: its graph has none.
    """
    if not list(embedder.network.parameters()):
        raise WeightsError(
            f"training needs an identity network with a gradient; {embedder.name} is an ONNX graph. "
            "Set judges.identity to arcface or resnet."
        )
    embedder.network.eval().requires_grad_(False)
    return embedder


def given_file(name: str, what: str, replacement: str) -> Path:
    """FILE of "NAME:FILE".

    Raises:
        WeightsError: none is given, or it is not there.
    """
    _, _, file = name.partition(":")
    if not file or not Path(file).is_file():
        raise WeightsError(
            f"this recipe's losses need {what}; got {file or 'no file'}. "
            f"Give one{replacement}, or leave its losses out."
        )
    return Path(file)


def load_perceptual(name: str, device: torch.device) -> tuple[nn.Module, list[torch.Tensor] | None]:
    """Feature network and, for LPIPS, its heads."""
    kind = name.partition(":")[0]
    if kind == "resnet-maps":
        return ResNetMaps(still(load_embedder("resnet", device)).network), None
    if kind not in ("vgg16", "lpips"):
        raise UsageError(f"judges.perceptual must be vgg16:FILE, lpips:FILE or resnet-maps; got {name!r}.")
    how = f": --set judges.perceptual={kind}:FILE, or replace it: --set judges.perceptual=resnet-maps"
    path = given_file(name, "VGG16 (torchvision's state dict)", how)
    network = VGG16(LPIPS_TAPS if kind == "lpips" else VGG_TAPS, 224 if kind == "vgg16" else None)
    state = weights.load_tensors(path)[0] if path.suffix == ".safetensors" else weights.load_checkpoint(path)
    wanted = network.state_dict()
    weights.load_strictly(network, {k: v for k, v in state.items() if k in wanted}, "VGG16")
    return network.eval().requires_grad_(False).to(device), lpips_heads(device) if kind == "lpips" else None


def lpips_heads(device: torch.device) -> list[torch.Tensor]:
    """Weights of LPIPS' linear layers for VGG16, out of the lpips package.

    Raises:
        WeightsError: the package is not installed.
    """
    found = find_spec("lpips")
    if found is None or not found.submodule_search_locations:
        raise WeightsError("LPIPS needs the heads in the lpips package; it is not installed. Type: pip install lpips")
    state = weights.load_checkpoint(Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / "vgg.pth")
    return [state[f"lin{k}.model.1.weight"].flatten().to(device) for k in range(5)]


def load_clip(
    name: str, device: torch.device
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[Sequence[str]], torch.Tensor]]:
    """CLIP's encoders from a checkpoint that open_clip reads."""
    path = given_file(name, "CLIP ViT-B/32", ": --set judges.clip=clip:FILE")
    if find_spec("open_clip") is None:
        raise WeightsError("CLIP needs open_clip; it is not installed. Type: pip install open_clip_torch")
    import open_clip

    model = open_clip.create_model("ViT-B-32-quickgelu", pretrained=str(path)).to(device).eval().requires_grad_(False)
    tokenize = open_clip.get_tokenizer("ViT-B-32-quickgelu")
    mean = torch.tensor(CLIP_MEAN, device=device)[:, None, None]
    spread = torch.tensor(CLIP_SPREAD, device=device)[:, None, None]

    def image(pictures: torch.Tensor) -> torch.Tensor:
        small = F.interpolate(pictures.float(), (224, 224), mode="bicubic", antialias=True, align_corners=False)
        return model.encode_image(((small + 1) / 2 - mean) / spread)  # [0, 1] before the statistics, not [0, 255]

    def text(captions: Sequence[str]) -> torch.Tensor:
        with torch.no_grad():
            return model.encode_text(tokenize(list(captions)).to(device))

    return image, text


def load_shape(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The 3D face regressor of MAttFace eq. 17."""
    raise WeightsError(
        f"this recipe's losses need the 3D face regressor {name}; this version has no such network. "
        "Leave the loss out: --set loss.shape=0"
    )


def _perceptual(name: str, device: torch.device) -> dict[str, Any]:
    features, heads = load_perceptual(name, device)
    return {"features": features, "heads": heads}


LOADERS: dict[str, Callable[[str, torch.device], dict[str, Any]]] = {
    "identity": lambda name, device: {"identity": still(load_embedder(name, device))},
    "perceptual": _perceptual,
    "clip": lambda name, device: {"clip": load_clip(name, device)},
    "shape": lambda name, device: {"shape": load_shape(name)},
}
"""Kind of judge -> what `Frozen` takes of it."""
