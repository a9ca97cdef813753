"""Networks that compare pictures: LPIPS' heads, VGG16 and AlexNet below them, Inception for FID, CLIP.

Their names stay as they are; only the key lists are stated here.
"""

from __future__ import annotations

from mattface.weights.layouts.shapes import Shapes, batch_norm, conv, linear, scale

VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
"""VGG16's convolutions (Simonyan and Zisserman 2015, configuration D); 0 is a pooling."""
LPIPS_VGG, LPIPS_ALEX = (64, 128, 256, 512, 512), (64, 192, 384, 256, 256)
"""Channels of the compared layers."""


def lpips_shapes(widths: tuple[int, ...]) -> Shapes:
    """LPIPS 0.1's linear heads over layers of these channels (Zhang et al., 2018, arXiv 1801.03924)."""
    return {f"lin{k}.model.1.weight": (1, width, 1, 1) for k, width in enumerate(widths)}


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


def alexnet_shapes() -> Shapes:
    """torchvision's AlexNet."""
    out: Shapes = {}
    for index, width, before, kernel in (
        (0, 64, 3, 11), (3, 192, 64, 5), (6, 384, 192, 3), (8, 256, 384, 3), (10, 256, 256, 3)
    ):  # fmt: skip
        out |= conv(f"features.{index}", width, before, kernel, bias=True)
    out |= linear("classifier.1", 4096, 256 * 6 * 6) | linear("classifier.4", 4096, 4096)
    return out | linear("classifier.6", 1000, 4096)


def inception_shapes() -> Shapes:
    """pytorch-fid's port of the 2015 Inception of 1008 classes (Szegedy et al., 2016, arXiv 1512.00567)."""
    out: Shapes = {}
    for name, width, before, kernel in _inception_layers():
        out |= conv(f"{name}.conv", width, before, kernel) | batch_norm(f"{name}.bn", width)
    return out | linear("fc", 1008, 2048)


def _inception_layers() -> list[tuple[str, int, int, tuple[int, int]]]:
    """(name, channels, channels before, kernel) of every convolution."""
    one, three, wide, tall = (1, 1), (3, 3), (1, 7), (7, 1)
    out = [
        ("Conv2d_1a_3x3", 32, 3, three), ("Conv2d_2a_3x3", 32, 32, three), ("Conv2d_2b_3x3", 64, 32, three),
        ("Conv2d_3b_1x1", 80, 64, one), ("Conv2d_4a_3x3", 192, 80, three),
    ]  # fmt: skip
    for name, before, pool in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        block = f"Mixed_{name}.branch"
        out += [(f"{block}1x1", 64, before, one), (f"{block}5x5_1", 48, before, one), (f"{block}5x5_2", 64, 48, (5, 5))]
        out += [(f"{block}3x3dbl_1", 64, before, one), (f"{block}3x3dbl_2", 96, 64, three)]
        out += [(f"{block}3x3dbl_3", 96, 96, three), (f"{block}_pool", pool, before, one)]
    block = "Mixed_6a.branch3x3"
    out += [(block, 384, 288, three), (f"{block}dbl_1", 64, 288, one), (f"{block}dbl_2", 96, 64, three)]
    out += [(f"{block}dbl_3", 96, 96, three)]
    for name, middle in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        block = f"Mixed_{name}.branch"
        out += [(f"{block}1x1", 192, 768, one), (f"{block}7x7_1", middle, 768, one)]
        out += [(f"{block}7x7_2", middle, middle, wide), (f"{block}7x7_3", 192, middle, tall)]
        out += [(f"{block}7x7dbl_1", middle, 768, one), (f"{block}7x7dbl_2", middle, middle, tall)]
        out += [(f"{block}7x7dbl_3", middle, middle, wide), (f"{block}7x7dbl_4", middle, middle, tall)]
        out += [(f"{block}7x7dbl_5", 192, middle, wide), (f"{block}_pool", 192, 768, one)]
    block = "Mixed_7a.branch"
    out += [(f"{block}3x3_1", 192, 768, one), (f"{block}3x3_2", 320, 192, three), (f"{block}7x7x3_1", 192, 768, one)]
    out += [(f"{block}7x7x3_2", 192, 192, wide), (f"{block}7x7x3_3", 192, 192, tall)]
    out += [(f"{block}7x7x3_4", 192, 192, three)]
    for name, before in (("7b", 1280), ("7c", 2048)):
        block = f"Mixed_{name}.branch"
        out += [(f"{block}1x1", 320, before, one), (f"{block}3x3_1", 384, before, one)]
        out += [(f"{block}3x3_2a", 384, 384, (1, 3)), (f"{block}3x3_2b", 384, 384, (3, 1))]
        out += [(f"{block}3x3dbl_1", 448, before, one), (f"{block}3x3dbl_2", 384, 448, three)]
        out += [(f"{block}3x3dbl_3a", 384, 384, (1, 3)), (f"{block}3x3dbl_3b", 384, 384, (3, 1))]
        out += [(f"{block}_pool", 192, before, one)]
    return out


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
