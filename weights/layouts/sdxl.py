"""SDXL base in diffusers' layout: UNet, VAE and the two text encoders. Names stay as they are.

Source of the sizes: Podell et al., 2023, arXiv 2307.01952, table 1, and the configuration files beside the weights.
"""

from __future__ import annotations

from mattface.weights.layouts.shapes import Shapes, below, conv, joined, linear, scale

TIME, TEXT = 1280, 2048
"""Length of the time embedding, and of a text token."""
WIDTHS, DEPTHS = (320, 640, 1280), (0, 2, 10)
"""Channels of the three resolutions, and transformer blocks of their attentions."""


def unet_shapes() -> Shapes:
    """Every key and shape of unet/diffusion_pytorch_model.safetensors."""
    out = conv("conv_in", 320, 4, 3, bias=True)
    out |= linear("time_embedding.linear_1", TIME, 320) | linear("time_embedding.linear_2", TIME, TIME)
    out |= linear("add_embedding.linear_1", TIME, 2816) | linear("add_embedding.linear_2", TIME, TIME)
    before = 320
    for level, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        block = f"down_blocks.{level}"
        for index in range(2):
            out |= _residual(f"{block}.resnets.{index}", width, before if index == 0 else width, TIME)
            out |= _attention(f"{block}.attentions.{index}", width, depth)
        if level < 2:
            out |= conv(f"{block}.downsamplers.0.conv", width, width, 3, bias=True)
        before = width
    out |= _residual("mid_block.resnets.0", 1280, 1280, TIME) | _residual("mid_block.resnets.1", 1280, 1280, TIME)
    out |= _attention("mid_block.attentions.0", 1280, 10)
    skips = [[640, 1280, 1280], [320, 640, 640], [320, 320, 320]]  # channels that wait, last in first out
    for level, (width, depth) in enumerate(zip(WIDTHS[::-1], DEPTHS[::-1], strict=True)):
        block = f"up_blocks.{level}"
        for index in range(3):
            out |= _residual(f"{block}.resnets.{index}", width, before + skips[level].pop(), TIME)
            out |= _attention(f"{block}.attentions.{index}", width, depth)
            before = width
        if level < 2:
            out |= conv(f"{block}.upsamplers.0.conv", width, width, 3, bias=True)
    return out | scale("conv_norm_out", 320) | conv("conv_out", 4, 320, 3, bias=True)


def vae_shapes() -> Shapes:
    """Every key and shape of vae/diffusion_pytorch_model.safetensors."""
    widths = (128, 256, 512, 512)
    encoder = conv("conv_in", 128, 3, 3, bias=True)
    before = 128
    for level, width in enumerate(widths):
        for index in range(2):
            encoder |= _residual(f"down_blocks.{level}.resnets.{index}", width, before if index == 0 else width)
        if level < 3:
            encoder |= conv(f"down_blocks.{level}.downsamplers.0.conv", width, width, 3, bias=True)
        before = width
    encoder |= _middle() | scale("conv_norm_out", 512) | conv("conv_out", 8, 512, 3, bias=True)
    decoder = conv("conv_in", 512, 4, 3, bias=True) | _middle()
    for level, width in enumerate(widths[::-1]):
        for index in range(3):
            decoder |= _residual(f"up_blocks.{level}.resnets.{index}", width, before if index == 0 else width)
        if level < 3:
            decoder |= conv(f"up_blocks.{level}.upsamplers.0.conv", width, width, 3, bias=True)
        before = width
    decoder |= scale("conv_norm_out", 128) | conv("conv_out", 3, 128, 3, bias=True)
    both = below("encoder", encoder) | below("decoder", decoder)
    return both | conv("quant_conv", 8, 8, 1, bias=True) | conv("post_quant_conv", 4, 4, 1, bias=True)


def text_encoder_shapes() -> Shapes:
    """Every key and shape of text_encoder/model.safetensors (CLIP ViT-L/14's)."""
    return _text_shapes(768, 12)


def text_encoder_2_shapes() -> Shapes:
    """Every key and shape of text_encoder_2/model.safetensors (OpenCLIP ViT-bigG/14's)."""
    return _text_shapes(1280, 32) | linear("text_projection", 1280, 1280, bias=False)


def _text_shapes(width: int, layers: int) -> Shapes:
    out: Shapes = {"embeddings.token_embedding.weight": (49408, width)}
    out |= {"embeddings.position_embedding.weight": (77, width), "embeddings.position_ids": (1, 77)}
    for index in range(layers):
        block = f"encoder.layers.{index}"
        out |= joined(linear(f"{block}.self_attn.{name}_proj", width, width) for name in ("k", "v", "q", "out"))
        out |= scale(f"{block}.layer_norm1", width) | scale(f"{block}.layer_norm2", width)
        out |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
    return below("text_model", out | scale("final_layer_norm", width))


def _residual(name: str, width: int, before: int, time: int = 0) -> Shapes:
    out = scale(f"{name}.norm1", before) | conv(f"{name}.conv1", width, before, 3, bias=True)
    out |= scale(f"{name}.norm2", width) | conv(f"{name}.conv2", width, width, 3, bias=True)
    if time:
        out |= linear(f"{name}.time_emb_proj", width, time)
    return out | (conv(f"{name}.conv_shortcut", width, before, 1, bias=True) if before != width else {})


def _attention(name: str, width: int, depth: int) -> Shapes:
    """A transformer of `depth` blocks over a map; nothing when there are none."""
    if depth == 0:
        return {}
    out = scale(f"{name}.norm", width)
    out |= linear(f"{name}.proj_in", width, width) | linear(f"{name}.proj_out", width, width)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        out |= joined(scale(f"{block}.norm{k}", width) for k in (1, 2, 3))
        for attention, keys in (("attn1", width), ("attn2", TEXT)):
            out |= linear(f"{block}.{attention}.to_q", width, width, bias=False)
            out |= linear(f"{block}.{attention}.to_k", width, keys, bias=False)
            out |= linear(f"{block}.{attention}.to_v", width, keys, bias=False)
            out |= linear(f"{block}.{attention}.to_out.0", width, width)
        out |= linear(f"{block}.ff.net.0.proj", 8 * width, width) | linear(f"{block}.ff.net.2", width, 4 * width)
    return out


def _middle() -> Shapes:
    """Two residual blocks and a plain attention between them (VAE)."""
    out = _residual("mid_block.resnets.0", 512, 512) | _residual("mid_block.resnets.1", 512, 512)
    out |= scale("mid_block.attentions.0.group_norm", 512)
    names = ("to_q", "to_k", "to_v", "to_out.0")
    return out | joined(linear(f"mid_block.attentions.0.{name}", 512, 512) for name in names)
