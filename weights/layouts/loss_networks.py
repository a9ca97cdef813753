"""Networks that compare pictures: VGG16, LPIPS' heads over it, and CLIP.

Their names stay as they are; only the key lists are stated here.
"""

from __future__ import annotations

from mattface.weights.layouts.shapes import Shapes, conv, linear, scale

VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""VGG16's convolutions (Simonyan and Zisserman 2015, configuration D); 0 is a pooling."""
LPIPS_WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the VGG16 layers that LPIPS compares."""


def lpips_shapes() -> Shapes:
    """LPIPS 0.1's linear heads over VGG16 (Zhang et al., 2018, arXiv 1801.03924)."""
    return {f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(LPIPS_WIDTHS)}


def vgg16_shapes() -> Shapes:
    """torchvision's VGG16."""
    out: Shapes = {}
    before, index = 3, 0
    for width in VGG_WIDTHS:
        if width:
            out |= conv(f"features.{index}", width, before, 3, bias=True)
            before = width
        index += 2 if width else 1
    out |= linear("classifier.0", 4096, 512 * 7 * 7) | linear("classifier.3", 4096, 4096)
    return out | linear("classifier.6", 1000, 4096)


def clip_shapes() -> Shapes:
    """CLIP ViT-B/32 in open_clip's names (Radford et al., 2021, arXiv 2103.00020)."""
    out: Shapes = {"positional_embedding": (77, 512), "text_projection": (512, 512), "logit_scale": ()}
    out |= {"visual.class_embedding": (768,), "visual.positional_embedding": (50, 768), "visual.proj": (768, 512)}
    out |= conv("visual.conv1", 768, 3, 32) | scale("visual.ln_pre", 768) | scale("visual.ln_post", 768)
    for tower, width in (("visual.transformer", 768), ("transformer", 512)):
        for index in range(12):
            block = f"{tower}.resblocks.{index}"
            out |= scale(f"{block}.ln_1", width) | scale(f"{block}.ln_2", width)
            out |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            out |= linear(f"{block}.attn.out_proj", width, width)
            out |= linear(f"{block}.mlp.c_fc", 4 * width, width) | linear(f"{block}.mlp.c_proj", width, 4 * width)
    return out | {"token_embedding.weight": (49408, 512)} | scale("ln_final", 512)
