"""Resampling and activation ops of image generators, under torch.library as mattface::NAME."""

from mattface.cuda_ops._bias_act import bias_act
from mattface.cuda_ops._implementations import available, reference_only
from mattface.cuda_ops._upfirdn2d import upfirdn2d
from mattface.cuda_ops.depthwise import inverse_haar, modulated_depthwise
from mattface.cuda_ops.filters import downsample2d, filter2d, setup_filter, upsample2d
from mattface.cuda_ops.fused import noise_bias_act, upsample_add
from mattface.cuda_ops.memory import release_memory
from mattface.cuda_ops.modulated import modulated_conv2d

__all__ = [
    "available",
    "bias_act",
    "downsample2d",
    "filter2d",
    "inverse_haar",
    "modulated_conv2d",
    "modulated_depthwise",
    "noise_bias_act",
    "reference_only",
    "release_memory",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
    "upsample_add",
]
