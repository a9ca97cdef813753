"""One face takes the light of another: smoothly, with its own detail, and without clipping."""

import pytest
import torch

from mattface.light import LUMA, apply_light, blur_map, light_change, tint

SIDE = 64


def face(low: float = 0.2, high: float = 0.6) -> torch.Tensor:
    """(1, 3, S, S) of noise between two intensities, in [-1, 1]."""
    noise = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    return (noise * (high - low) + low) * 2 - 1


def inside() -> torch.Tensor:
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 16:48, 16:48] = 1
    return mask


def means(image: torch.Tensor) -> torch.Tensor:
    return blur_map((image + 1) / 2 * inside(), 6.0) / blur_map(inside(), 6.0).clamp_min(1e-3)


def sloped() -> torch.Tensor:
    """Factors of a light that falls from the left."""
    return torch.linspace(1.3, 0.5, SIDE).expand(1, 3, SIDE, SIDE)


TINT = torch.tensor([1.2, 1.0, 0.7]).view(1, 3, 1, 1)
LIGHTS = {"dark": torch.full((1, 3, 1, 1), 0.5), "tinted": TINT, "sloped": sloped(), "same": torch.ones(1, 3, 1, 1)}


@pytest.mark.parametrize("name", LIGHTS)
def test_the_change_of_light_is_found(name):
    wanted = (face() + 1) / 2 * LIGHTS[name] * 2 - 1
    lit = apply_light(face(), light_change(face(), wanted, inside(), 6.0))
    keep = inside().bool().expand_as(lit)
    assert (means(lit) - means(wanted)).abs()[keep].max() < 0.02
    assert lit.min() > -1 and lit.max() < 1


def test_detail_stays_and_comes_from_the_face_itself():
    wanted = means(face()) * 0.5 * 2 - 1  # half as bright, without any detail
    lit = apply_light(face(), light_change(face(), wanted, inside(), 6.0))
    ratio = ((lit + 1) / (face() + 1))[..., 20:44, 20:44]
    assert 0.4 < ratio.mean() < 0.6 and ratio.std() < 0.05, "every pixel is darkened alike"


def test_pixels_without_weight_do_not_count():
    wanted = face().clone()
    wanted[..., :12, :] = 1  # a white bar outside
    change = light_change(face(), wanted, inside(), 4.0)
    assert change[..., 28:, 16:48].abs().max() < 0.05


def test_a_white_picture_asks_for_a_bounded_change_that_clips_nothing():
    change = light_change(face(), torch.ones(1, 3, SIDE, SIDE), inside(), 6.0)
    lit = apply_light(face(), change)
    assert change.max() > 0.3 and torch.isfinite(lit).all() and lit.max() < 1


def test_the_curve_keeps_black_and_white_and_has_its_slope_at_black():
    x = torch.linspace(0, 1, 101).view(1, 1, 1, -1).expand(1, 3, 1, 101)
    for k in (-1.0, 0.0, 0.7):
        y = (apply_light(x * 2 - 1, torch.full_like(x, k)) + 1) / 2
        assert y[..., 0].abs().max() < 1e-6
        assert (y.diff() > 0).all(), "brighter stays brighter"
        assert torch.allclose(y[..., 5], x[..., 5] * torch.tensor(k).exp(), rtol=0.02)
        assert k < 0 or torch.allclose(y[..., -1], torch.ones(()), atol=1e-5)


def test_blur_keeps_constants_and_gradients_flow():
    x = torch.full((1, 2, 16, 16), 0.3, requires_grad=True)
    y = blur_map(x, 9.0)
    assert torch.allclose(y, x, atol=1e-5)
    image = face()[..., :16, :16].requires_grad_(True)
    light_change(image, image.detach() * 0.5, torch.ones(1, 1, 16, 16), 3.0).sum().backward()
    assert torch.isfinite(image.grad).all() and image.grad.abs().max() > 0


def test_colour_is_another_s_while_brightness_stays() -> None:
    rng = torch.Generator().manual_seed(1)
    image, other = (torch.rand(1, 3, 8, 8, generator=rng) * 0.6 - 0.3 for _ in range(2))
    luma = torch.tensor(LUMA)[:, None, None]
    whole, none = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    assert torch.allclose(tint(image, other, none), image, atol=1e-6)
    made = tint(image, other, whole)
    assert torch.allclose((made * luma).sum(1), (image * luma).sum(1), atol=1e-6)
    apart, wanted = (x - (x * luma).sum(1, keepdim=True) for x in (made, other))
    assert torch.allclose(apart, wanted, atol=1e-6)
    white, red = torch.full((1, 3, 8, 8), 0.97), torch.tensor([0.9, -0.5, -0.5]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert tint(white, red, whole).max() <= 0.97 + 1e-6, "nothing blows that was not blown"
