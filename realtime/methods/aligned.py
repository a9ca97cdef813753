"""One method class for every network of an aligned crop and an identity code, and the checkpoints of such networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from mattface import perception
from mattface import weights as registry
from mattface.embed import Embedder
from mattface.errors import UsageError, WeightsError
from mattface.methods.contract import CropSpec, Description, filtered
from mattface.parse import Parser
from mattface.realtime.methods.blocks import SwapNetwork, moved
from mattface.vocabulary import Crop, MatteFilter, Swap

FRAMINGS = ("whole", "own")
DOUBT = 0.05
"""Predicted mattes nearer than this to 0 or 1 mean just that."""
Run = Callable[..., torch.Tensor]
"""(target (B, 3, S, S) in [-1, 1], code (B, D), ...) float32 -> (B, 3 or 4, S, S) float32, on the method's device."""


class IdentityCoder:
    """Source crop -> identity code.

    Args:
        embedder: identity part.
        framing: "whole" gives its network the whole crop, resized, as these methods were trained; "own" lets the
            identity part cut its own framing out of the crop.
        matrix: (D', D) that the vector is multiplied by before it is normalised, or None.
    """

    def __init__(self, embedder: Embedder, framing: str, matrix: torch.Tensor | None = None) -> None:
        check_choice("identity_crop", framing, FRAMINGS)
        self.embedder, self.framing, self.matrix = embedder, framing, matrix
        self.name = embedder.name

    def __call__(self, crop: Crop) -> torch.Tensor:
        """(1, D) float32 of unit length."""
        pixels, embedder = crop.pixels.to(self.embedder.device), self.embedder
        if self.framing == "own":
            vector = embedder.differentiable(pixels, embedder.matrix(crop.mesh, crop.points))
        else:
            small = F.interpolate(pixels, (embedder.size, embedder.size), mode="bicubic", antialias=True)
            vector = embedder.network(small.clamp(-1, 1)) - embedder.centre
        if self.matrix is not None:
            vector = vector @ self.matrix
        return F.normalize(vector.float(), dim=1)


class AlignedMethod:
    """A network of one aligned crop and one identity code behind the method contract.

    Attributes:
        name, crop, weights: see the contract.
        network: the module, on `device` and in `dtype`; engines and exports start from it.
        run: what `swap` calls; an engine puts its own here.
        engine: name of the engine that `run` is.
        coder: source crop to identity code (1, D), as an `IdentityCoder` does.
        parser: inner face of the target, which is the matte of networks that predict none.
    """

    def __init__(
        self,
        name: str,
        crop: CropSpec,
        network: SwapNetwork,
        coder: Callable[[Crop], torch.Tensor],
        parser: Parser,
        weights: str,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.name, self.crop, self.weights = name, crop, weights
        self.network = moved(network, device, dtype).eval().requires_grad_(False)
        self.coder, self.parser = coder, parser
        self.device, self.dtype = device, dtype
        self.run: Run = Eager(self.network, dtype)
        self.engine = "eager"

    def encode(self, source: Crop) -> torch.Tensor:
        """(1, D) identity code of a source crop."""
        return self.coder(source).to(self.device)

    def merge(self, encoded: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean code, of unit length again."""
        return F.normalize(torch.cat(list(encoded)).mean(0, keepdim=True), dim=1)

    def describe(self) -> Description:
        """See the contract."""
        return Description(self.name, self.weights, self.parser.name, self.engine)

    def swap(self, encoded: torch.Tensor, target: Crop, *, matte_filter: MatteFilter | None = None) -> Swap:
        """Swaps one target crop with a mesh; the matte is the network's own, or else the target's inner face."""
        found = self.run(target.pixels.to(self.device), encoded, *self.network.drawn(target))
        if found.shape[1] == 3:
            swap = Swap(found, self.parser(target).to(self.device))
        else:
            swap = Swap(found[:, :3], clamp_matte((found[:, 3:] + 1) / 2))
        return filtered(swap, matte_filter)

    def example(self, batch: int = 1) -> tuple[torch.Tensor, ...]:
        """Inputs of the network that any engine or export can be tried with, float32 on the method's device."""
        side = self.crop.size or 256
        draw = torch.Generator().manual_seed(0)
        shapes = self.network.input_shapes(side)
        inputs = [torch.rand(batch, *shape, generator=draw) * 2 - 1 for shape in shapes]
        inputs[1] = F.normalize(inputs[1], dim=1)
        return tuple(x.to(self.device) for x in inputs)


def clamp_matte(matte: torch.Tensor) -> torch.Tensor:
    """A predicted matte whose least and greatest values become exactly 0 and 1, so that the rest stays untouched."""
    return ((matte - DOUBT) / (1 - 2 * DOUBT)).clamp(0, 1)


class Eager:
    """Runs a module as it stands: inputs go to its dtype, results come back as float32.

    Args:
        network: in `dtype`.
        dtype: of the network.
        channels_last: memory order of pictures and maps.
    """

    def __init__(self, network: Callable[..., torch.Tensor], dtype: torch.dtype, channels_last: bool = True) -> None:
        self.network, self.dtype = network, dtype
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Network inputs, float32, to (B, 3, S, S) float32."""
        return self.network(*self.prepared(inputs)).float()

    def prepared(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The inputs in the network's dtype and memory order."""
        return [
            x.to(dtype=self.dtype, memory_format=self.layout if x.ndim == 4 else torch.preserve_format) for x in inputs
        ]


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Rejects a value that is not among the choices.

    Raises:
        UsageError: naming them.
    """
    if value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}.")


@dataclass(frozen=True)
class Sizes:
    """What the configurations of all these networks begin with. The defaults are those of the public AlphaFace code.

    Attributes:
        size: side of crop and result.
        widths: channels of the encoder; the last is that of what injects the identity.
        blocks: how many of these there are.
        decoder: channels of the decoder.
        code: D, length of the identity code.
        identity: identity part of `mattface.embed` whose vector is the code.
        identity_crop: "whole" (the crop itself, resized) or "own" (the identity part's own framing).
        template: framing of the crops, see `CropSpec`.
    """

    size: int = 256
    widths: tuple[int, ...] = (128, 256, 512, 1024)
    blocks: int = 6
    decoder: tuple[int, ...] = (512, 256, 128)
    code: int = 512
    identity: str = "arcface"
    identity_crop: str = "whole"
    template: str = "arcface"

    def __post_init__(self) -> None:
        check_choice("template", self.template, ("arcface", "ffhq"))
        check_choice("identity_crop", self.identity_crop, FRAMINGS)


C = TypeVar("C", bound=Sizes)
GONE = (("fold", 1), ("portrait", 0))
"""Fields of earlier configurations at the values that mean nothing: alphaface once held alphaface-small, too."""


def config_json(config: Sizes) -> str:
    """A configuration as JSON, as kept in a checkpoint's metadata."""
    return json.dumps(asdict(config))


def read_config(kind: type[C], text: str, what: str) -> C:
    """Reads what `config_json` wrote.

    Raises:
        WeightsError: not the configuration of such a network.
    """
    try:
        known = kind.__dataclass_fields__
        values = {k: v for k, v in json.loads(text).items() if k in known or (k, v) not in GONE}
        if any(name in values and name not in known for name, _ in GONE):
            raise WeightsError(f"{what} holds a network of alphaface-small. Take --method alphaface-small.")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return kind(**fields)
    except (TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{what}: its configuration does not fit ({error}). Take weights of this version."
        ) from error


def open_checkpoint(
    name: str,
    weights: str | None,
    kind: type[C],
    build_network: Callable[[C], SwapNetwork],
    options: dict[str, Any],
    earlier: tuple[str, ...] = (),
) -> tuple[C, SwapNetwork]:
    """Configuration and network of a safetensors file that `save_checkpoint` or training wrote.

    Args:
        name: of the method.
        weights: registered name or path.
        kind: configuration class.
        build_network: configuration to a fresh network.
        options: fields the caller insists on.
        earlier: names under which the method's checkpoints were once written.

    Raises:
        UsageError: an option that the configuration does not have.
        WeightsError: no weights, another method's, damaged, or of another variant than asked for.
    """
    unknown = sorted(set(options) - set(kind.__dataclass_fields__))
    if unknown:
        raise UsageError(f"{name} options are {', '.join(kind.__dataclass_fields__)}; got {', '.join(unknown)}.")
    if weights is None:
        raise WeightsError(
            f"{name} has no published weights; expected a .safetensors file of a trained one. "
            "Pass it as --weights FILE.safetensors, or take --method alphaface, whose weights are public."
        )
    tensors, metadata = registry.load_tensors(weights)
    if metadata.get("method") not in (name, *earlier) or "config" not in metadata:
        raise WeightsError(
            f"{weights} must carry the method {name} and its configuration in its metadata; got "
            f"{metadata.get('method', 'none')}. Take weights of that method."
        )
    config = read_config(kind, metadata["config"], weights)
    try:
        wanted = replace(config, **options)
    except TypeError as error:
        raise UsageError(f"{name}: an option has the wrong type ({error}).") from error
    if wanted != config:
        differing = [k for k in options if getattr(config, k) != getattr(wanted, k)]
        raise WeightsError(
            f"{weights} was trained with "
            f"{', '.join(f'{k}={getattr(config, k)!r}' for k in differing)}; got "
            f"{', '.join(f'{k}={getattr(wanted, k)!r}' for k in differing)}. Leave it out or take other weights."
        )
    network = build_network(config)
    registry.load_strictly(network, {k: v.float() for k, v in tensors.items()}, f"{name} ({weights})")
    return config, network


def save_checkpoint(path: str | Path, name: str, config: Sizes, network: torch.nn.Module) -> None:
    """Writes a network with its method's name and configuration as a safetensors file.

    Args:
        path: ends in .safetensors.
        name: of the method.
        config: its configuration.
        network: its tensors are written as they are.
    """
    from safetensors.torch import save_file

    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    save_file(state, str(path), {"method": name, "config": config_json(config)})


def build_trained(
    name: str,
    kind: type[C],
    build_network: Callable[[C], SwapNetwork],
    weights: str | None,
    device: torch.device,
    dtype: torch.dtype,
    commercial: bool | None,
    options: dict[str, Any],
    earlier: tuple[str, ...] = (),
) -> AlignedMethod:
    """The method of a checkpoint, with the identity part its configuration names and the strongest parser.

    Args and errors: see `open_checkpoint` and, for `commercial`, the contract; WeightsError, too, when the identity
    part is not here.
    """
    config, network = open_checkpoint(name, weights, kind, build_network, options, earlier)
    embedder = perception.load("identity", config.identity, device, commercial=commercial)
    parser = perception.load("parser", device=device, dtype=dtype, commercial=commercial)
    coder, crop = IdentityCoder(embedder, config.identity_crop), CropSpec(config.template, config.size)
    return AlignedMethod(name, crop, network, coder, parser, str(weights), device, dtype)


def builder_of(name: str, kind: type[C], build_network: Callable[[C], SwapNetwork]) -> Callable[..., AlignedMethod]:
    """`build` of a method without published weights; arguments as in `open_checkpoint`."""

    def build(
        weights: str | None, device: torch.device, dtype: torch.dtype, commercial: bool | None = None, **options: Any
    ) -> AlignedMethod:
        """Builds the method from a trained checkpoint.

        Args:
            weights: a safetensors file; there are no published weights.
            device, dtype: where and in which dtype the network runs.
            commercial: see the contract.
            options: fields of the method's `Config`; they must be those of the checkpoint.

        Raises:
            UsageError: an unknown option.
            WeightsError: no weights, or of another method or variant, or the identity part is not here.
        """
        return build_trained(name, kind, build_network, weights, device, dtype, commercial, options)

    return build
