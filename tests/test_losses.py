"""Losses against numbers worked out by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from mattface.errors import UsageError
from mattface.training import losses


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(value: float, count: int = 1, size: int = 4) -> torch.Tensor:
    return torch.full((count, 3, size, size), value)


SIXTY_DEGREES = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, math.sqrt(0.75)]])


@pytest.mark.parametrize("loss", [losses.identity_loss, losses.shape_loss, losses.clip_identity_loss])
def test_cosine_losses_are_half_at_sixty_degrees_whatever_the_lengths(loss):
    a, b = SIXTY_DEGREES
    assert loss(3 * a, 7 * b) == pytest.approx(0.5, abs=1e-6)
    assert loss(a, -a) == pytest.approx(2, abs=1e-6)


def test_text_counts_only_while_the_result_fits_worse_than_the_target():
    text = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    swap = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    target = torch.tensor([[0.8, 0.6], [0.0, 1.0]])  # fits better than the result, fits worse
    assert losses.clip_text_loss(swap, text, target) == pytest.approx(0.4 / 2, abs=1e-6)
    assert losses.clip_text_loss(swap, text) == pytest.approx(0.4, abs=1e-6)
    assert losses.clip_text_margin_loss(swap, text, target) == pytest.approx(0.2, abs=1e-6)


def test_reconstruction_counts_same_identities_only():
    swap, target = torch.cat([flat(0.3), flat(0.9)]), flat(0.0, 2)
    assert losses.same_identity_loss(swap, target, torch.tensor([1.0, 0.0])) == pytest.approx(0.3, abs=1e-3)
    assert losses.same_identity_loss(swap, target, torch.tensor([1.0, 1.0])) == pytest.approx(0.6, abs=1e-3)
    assert losses.same_identity_loss(swap, target, torch.zeros(2)) == 0


def test_rare_and_frequent_pixels_count_alike_in_a_balanced_loss():
    truth = torch.ones(1, 1, 10, 10)
    truth[..., 0, 0] = 0  # one place of a hundred is not shown
    weight = torch.ones(1, 1, 10, 10)
    always, right = torch.full_like(truth, 0.9), truth * 0.8 + 0.1
    known = (-math.log(0.9) - math.log(0.1)) / 2
    assert losses.balanced_loss(always, truth, weight) == pytest.approx(known, rel=1e-4)
    assert losses.balanced_loss(right, truth, weight) == pytest.approx(-math.log(0.9), rel=1e-4)
    weight[..., 0, 0] = 0  # where nothing is hidden only the rest counts
    assert losses.balanced_loss(always, truth, weight) == pytest.approx(-math.log(0.9) / 2, rel=1e-4)


def test_masked_cycle_and_self_reconstruction():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1  # the left half is face
    assert losses.masked_loss(flat(0.5), flat(0.1), mask) == pytest.approx(0.2)
    assert losses.masked_loss(flat(0.5), flat(0.1), torch.ones_like(mask)) == 0
    assert losses.cycle_loss(flat(0.5), flat(0.1)) == pytest.approx(0.4)
    assert losses.self_loss(flat(0.5), flat(0.1)) == pytest.approx(0.16)
    assert losses.self_loss(flat(0.5), flat(0.1), power=1) == pytest.approx(0.4)


def test_feature_reconstruction_shrinks_the_mask_to_every_layer():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    swap, target = [torch.ones(1, 2, 4, 4), torch.ones(1, 5, 2, 2)], [torch.zeros(1, 2, 4, 4), torch.zeros(1, 5, 2, 2)]
    assert losses.feature_loss(swap, target, mask) == pytest.approx(0.5 + 0.5)
    assert losses.feature_loss([swap[1]], [target[1]], torch.full_like(mask, 0.5)) == pytest.approx(0.25)


def scaled_copies(x: torch.Tensor) -> list[torch.Tensor]:
    return [2 * x, 3 * x]


def test_perceptual_losses_sum_layers_and_spare_the_target():
    swap, target = flat(0.5).requires_grad_(), flat(0.4).requires_grad_()
    assert losses.perceptual_loss(scaled_copies, swap, target).item() == pytest.approx(0.04 + 0.09, abs=1e-6)
    linear = losses.perceptual_loss(scaled_copies, swap, target, power=1)
    assert linear.item() == pytest.approx(0.2 + 0.3, abs=1e-6)
    linear.backward()
    assert swap.grad is not None and target.grad is None


def test_lpips_normalises_over_channels_and_weighs_them():
    def layers(x: torch.Tensor) -> list[torch.Tensor]:
        return [x]

    swap, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    swap[:, 0], target[:, 1] = 5, 0.1  # unit vectors e0 and e1 at every place
    found = losses.lpips_loss(layers, [torch.tensor([1.0, 0.25, 9.0])], swap, target)
    assert found == pytest.approx(1.25, abs=1e-4)
    assert losses.lpips_loss(layers, [torch.ones(3)], 2 * swap, swap) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("form", "discriminator", "generator"),
    [
        ("log", math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))),
        ("minimax", math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-1)), -math.log(1 + math.exp(-1))),
        ("least-squares", 1.0 + 1.0, 4.0),
        ("hinge", 0.0 + 0.0, 1.0),
    ],
)
def test_adversarial_forms(form, discriminator, generator):
    real, fake = torch.full((2, 1, 3, 3), 2.0), torch.full((2, 1, 3, 3), -1.0)
    assert losses.discriminator_loss(form, real, fake) == pytest.approx(discriminator, abs=1e-6)
    assert losses.generator_loss(form, fake) == pytest.approx(generator, abs=1e-6)
    assert losses.afsa_discriminator_loss(form, [real, real], [fake, fake]) == pytest.approx(discriminator, abs=1e-6)
    assert losses.afsa_generator_loss(form, [fake, fake]) == pytest.approx(generator, abs=1e-6)


@pytest.mark.parametrize("form", losses.FORMS)
def test_better_scores_are_better(form):
    low, high = torch.tensor([-0.5]), torch.tensor([0.5])
    assert losses.generator_loss(form, high) < losses.generator_loss(form, low)
    assert losses.discriminator_loss(form, high, low) < losses.discriminator_loss(form, low, high)


def test_an_unknown_form_is_rejected():
    with pytest.raises(UsageError, match="hinge"):
        losses.discriminator_loss("wasserstein", torch.zeros(1), torch.zeros(1))


def landmarks_of(boxes: dict[str, tuple[float, float, float, float]]) -> torch.Tensor:
    """(1, 68, 2) landmarks of which every region spans a box (left, top, right, bottom)."""
    points = torch.zeros(1, 68, 2)
    for name, (left, top, right, bottom) in boxes.items():
        index = list(losses.REGIONS[name])
        points[0, index] = torch.tensor([float(left), float(top)])
        points[0, index[-1]] = torch.tensor([float(right), float(bottom)])
    return points


def test_patches_are_cut_where_the_landmarks_are():
    side = 64
    ramp = torch.arange(side) + 0.5  # every pixel holds its own x, y, 0
    picture = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), torch.zeros(side, side)])[None]
    boxes = {"eye": (16, 20, 48, 28), "nose": (28, 24, 36, 40), "mouth": (24, 44, 40, 50), "jaw": (12, 30, 52, 58)}
    patches = losses.landmark_patches(picture, landmarks_of(boxes), 8)
    for patch, (left, top, right, bottom) in zip(patches, boxes.values(), strict=True):
        assert patch.shape == (1, 3, 8, 8)
        assert patch[0, 0].mean() == pytest.approx((left + right) / 2, abs=1e-3)
        assert patch[0, 1].mean() == pytest.approx((top + bottom) / 2, abs=1e-3)
        step = (right - left) * 1.2 / 8
        assert patch[0, 0, 0, 1] - patch[0, 0, 0, 0] == pytest.approx(step, rel=1e-3)
    with pytest.raises(UsageError, match="68"):
        losses.landmark_patches(picture, torch.zeros(1, 5, 2), 8)


def test_r1_of_a_linear_discriminator_is_its_squared_slope():
    slope = normal(3, 4, 4)
    real = normal(5, 3, 4, 4, seed=1).requires_grad_()
    scores = (real * slope).sum((1, 2, 3))
    assert losses.r1_penalty(scores, real).item() == pytest.approx(slope.square().sum().item())


def test_path_lengths_of_a_linear_generator():
    styles = normal(2, 2, 1).requires_grad_()
    image = styles.sum(1)[:, :, None, None].expand(2, 3, 2, 2)  # every pixel is the sum of both styles
    noise = torch.ones(2, 3, 2, 2, dtype=torch.float64)
    lengths = losses.path_lengths(image, styles, noise)
    assert lengths.tolist() == pytest.approx([6.0, 6.0])  # 12 pixels / sqrt(4), the same for both styles
    assert losses.path_penalty(lengths, torch.tensor(4.0)).item() == pytest.approx(4.0)


def test_weight_penalty_is_the_mean_absolute_weight():
    assert losses.weight_penalty([torch.tensor([1.0, -3.0]), torch.tensor([[2.0]])]) == pytest.approx(2.0)


def features64(x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.sin(2 * x), torch.cos(x[..., ::2, ::2])]


QUARTER = torch.full((2, 1, 4, 4), 0.25, dtype=torch.float64)
SMOOTH = {
    "identity": lambda x: losses.identity_loss(x.flatten(1), normal(2, 48, seed=1)),
    "text": lambda x: losses.clip_text_loss(x.flatten(1), normal(2, 48, seed=1), normal(2, 48, seed=2)),
    "same": lambda x: losses.same_identity_loss(x, normal(2, 3, 4, 4, seed=1), torch.ones(2, dtype=torch.float64)),
    "feature": lambda x: losses.feature_loss([x], [normal(2, 3, 4, 4, seed=1)], QUARTER),
    "perceptual": lambda x: losses.perceptual_loss(features64, x, normal(2, 3, 4, 4, seed=1)),
    "lpips": lambda x: losses.lpips_loss(features64, [torch.ones(3).double()] * 2, x, normal(2, 3, 4, 4, seed=1)),
    "log": lambda x: losses.generator_loss("log", x) + losses.discriminator_loss("log", x, -x),
    "least-squares": lambda x: losses.generator_loss("least-squares", x),
    "patches": lambda x: torch.stack(
        [p.square().mean() for p in losses.landmark_patches(x, landmarks_of(BOXES).expand(2, -1, -1), 2)]
    ).sum(),
    "flow": lambda x: losses.flow_loss(x, normal(2, 3, 4, 4, seed=1), torch.full((2, 1, 4, 4), 0.5).double()),
    "r1": lambda x: losses.r1_penalty(torch.sin(x).sum((1, 2, 3)), x),
}
BOXES = {"eye": (1.0, 1, 3, 2), "nose": (1.0, 1, 3, 3), "mouth": (1.0, 2, 3, 3), "jaw": (0.5, 1, 3.5, 3.5)}


@pytest.mark.parametrize("name", list(SMOOTH))
def test_gradients_are_those_of_finite_differences(name):
    assert gradcheck(SMOOTH[name], (normal(2, 3, 4, 4).requires_grad_(),))


def test_tau_carries_no_gradient_and_a_dropped_sample_gets_none():
    swap = torch.tensor([[0.6, 0.8], [0.6, 0.8]], requires_grad=True)
    text, target = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.8, 0.6], [0.0, 1.0]])
    losses.clip_text_loss(swap, text, target).backward()
    assert swap.grad is not None
    assert swap.grad[0].abs().sum() > 0 and swap.grad[1].abs().sum() == 0
