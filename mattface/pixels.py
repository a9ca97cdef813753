"""The one converter between pixels outside (HxWxC in the caller's type) and inside ((B, 3, H, W) in [-1, 1])."""

from __future__ import annotations

import numpy as np
import torch

from mattface.checks import PIXEL_TYPES, check_array
from mattface.errors import MattfaceError, UsageError

HALF_RANGE = {np.dtype(np.uint8): 127.5, np.dtype(np.uint16): 32767.5, np.dtype(np.float32): 0.5}
"""value = (x + 1) * HALF_RANGE and x = value / HALF_RANGE - 1: fixed, whatever an image's own range is."""


def to_tensor(
    pixels: np.ndarray, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Turns pixels into what networks take.

    Args:
        pixels: (H, W, 3) RGB; uint8, uint16 or float32 in [0, 1]. An alpha channel, if any, is left out.
        device: where the tensor shall be.
        dtype: floating type of the tensor. The arithmetic is done in float32.

    Returns:
        (1, 3, H, W) in [-1, 1]: x = value / 127.5 - 1 for uint8, and alike for the other types.

    Raises:
        InputError: another shape or dtype.
    """
    checked = check_array(pixels, "pixels")
    channels_first = np.ascontiguousarray(checked[..., :3].transpose(2, 0, 1), dtype=np.float32)
    tensor = torch.from_numpy(channels_first).to(device).div_(HALF_RANGE[checked.dtype]).sub_(1)
    return tensor[None].to(dtype)


def to_pixels(tensor: torch.Tensor, dtype: np.dtype | type) -> np.ndarray:
    """Turns a network's picture into pixels.

    Args:
        tensor: (3, H, W) or (1, 3, H, W), about [-1, 1]; what lies outside is clipped.
        dtype: uint8, uint16 or float32.

    Returns:
        (H, W, 3) RGB. Integers are rounded to the nearest, exact halves to the even neighbour, so that
        `to_pixels(to_tensor(p), p.dtype)` equals p for every uint8 and uint16 picture.

    Raises:
        UsageError: another shape or dtype.
        MattfaceError: the tensor holds NaN.
    """
    kind = np.dtype(dtype)
    if kind not in PIXEL_TYPES:
        raise UsageError(f"to_pixels makes uint8, uint16 or float32; got {kind}. Convert its result further.")
    single = tensor[0] if tensor.ndim == 4 and tensor.shape[0] == 1 else tensor
    if single.ndim != 3 or single.shape[0] != 3:
        raise UsageError(f"to_pixels takes (3, H, W) or (1, 3, H, W); got {tuple(tensor.shape)}. Pass one picture.")
    values = single.detach().to(torch.float32).add(1).mul_(HALF_RANGE[kind])
    if torch.isnan(values).any():
        raise MattfaceError("The network's picture holds NaN where numbers were expected. Try --dtype fp32.")
    if kind == np.float32:
        return values.clamp_(0, 1).permute(1, 2, 0).contiguous().cpu().numpy()
    rounded = values.round_().clamp_(0, np.iinfo(kind).max)
    return np.ascontiguousarray(rounded.permute(1, 2, 0).cpu().numpy().astype(kind))


def eight_bit(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) of any supported type as uint8, for the perception parts."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image // 257).astype(np.uint8)
    return np.rint(image * 255).astype(np.uint8)
