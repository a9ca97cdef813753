"""Names of other projects -> ours: per origin the whole key list with shapes, and a pure function from names to names.

Values are moved, never changed, but for constants that we rebuild. Every key must be used or stand on a list of
ignored ones; anything else is an error, and so is a second key for the same place. Missing keys show when the network
loads the result strictly.
"""

from mattface.weights.layouts.alphaface import alphaface_swapper
from mattface.weights.layouts.arcface import arcface_torch, folded_arcface
from mattface.weights.layouts.estimators import bisenet, deep3d
from mattface.weights.layouts.psp import PspParts, ir_se50, psp_encoder, psp_file
from mattface.weights.layouts.stylegan2 import (
    nvidia_discriminator,
    nvidia_generator,
    rosinality_discriminator,
    rosinality_generator,
    to_nvidia_discriminator,
    to_nvidia_generator,
    to_rosinality_discriminator,
    to_rosinality_generator,
)

__all__ = [
    "PspParts",
    "alphaface_swapper",
    "arcface_torch",
    "bisenet",
    "deep3d",
    "folded_arcface",
    "ir_se50",
    "nvidia_discriminator",
    "nvidia_generator",
    "psp_encoder",
    "psp_file",
    "rosinality_discriminator",
    "rosinality_generator",
    "to_nvidia_discriminator",
    "to_nvidia_generator",
    "to_rosinality_discriminator",
    "to_rosinality_generator",
]
