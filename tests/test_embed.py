"""Identity: the ResNet and its file reader, sampling, gradients, agreement with dlib where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_state

from mattface import align, embed, geometry, perception, weights
from mattface.data.templates import ARCFACE_112
from mattface.embed import Embedder, resnet
from mattface.embed.resnet import Block, IdentityResNet
from mattface.errors import UsageError, WeightsError
from mattface.geometry import sample
from mattface.vocabulary import Face
from mattface.weights.adopt import adopt

GOLDEN = Path(__file__).parent / "golden"


def number(value: int) -> bytes:
    """An integer as dlib writes it."""
    body = abs(value).to_bytes(max(1, (abs(value).bit_length() + 7) // 8), "little")
    return bytes([len(body) | (128 if value < 0 else 0)]) + body


def tensor(values: np.ndarray, *sizes: int) -> bytes:
    return b"".join(number(n) for n in (2, *sizes)) + values.astype("<f4").tobytes()


def name(text: bytes) -> bytes:
    return number(len(text)) + text


def as_dlib(net: IdentityResNet) -> bytes:
    """A file of the kind that `resnet.read` reads, from a network's own weights."""
    out = b"\x01\x01" + name(b"loss_metric_2")
    pairs = [(net.stem, net.stem_affine)]
    for block in net.blocks:
        pairs += [(block.first, block.first_affine), (block.second, block.second_affine)]
    for conv, affine in pairs:
        values = np.concatenate([p.detach().numpy().ravel() for p in (conv.weight, conv.bias)])
        out += name(b"con_4") + tensor(values, len(values), 1, 1, 1)
        values = np.concatenate([affine.gamma.detach().numpy(), affine.beta.detach().numpy()])
        out += name(b"affine_") + tensor(values, len(values), 1, 1, 1)
    matrix = net.head.weight.detach().numpy().T
    return out + name(b"fc_2") + number(128) + number(256) + tensor(matrix.ravel(), 256, 128, 1, 1)


def random_net() -> IdentityResNet:
    torch.manual_seed(3)
    net = IdentityResNet()
    for module in net.modules():
        if isinstance(module, resnet.Affine):
            torch.nn.init.normal_(module.gamma, 1, 0.1)
            torch.nn.init.normal_(module.beta, 0, 0.1)
    return net.eval()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, IdentityResNet]:
    net = random_net()
    path = tmp_path_factory.mktemp("dlib") / "net.dat"
    path.write_bytes(as_dlib(net))
    return path, net


# the file


def test_reader_round_trip(file: tuple[Path, IdentityResNet]) -> None:
    path, net = file
    again = resnet.read(path)
    for key, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    assert not any(p.requires_grad for p in again.parameters())


@pytest.mark.parametrize("keep", [0, 10, 500, 30_000, -1, -4])
def test_short_files_are_rejected(file: tuple[Path, IdentityResNet], tmp_path: Path, keep: int) -> None:
    (tmp_path / "short.dat").write_bytes(file[0].read_bytes()[:keep])
    with pytest.raises(WeightsError, match="mattface weights pull identity-resnet"):
        resnet.read(tmp_path / "short.dat")


@pytest.mark.parametrize("seed", range(6))
def test_noisy_files_end_in_one_kind_of_error(file: tuple[Path, IdentityResNet], tmp_path: Path, seed: int) -> None:
    """Damaged headers: the reader rejects, it never runs past the data or asks for absurd memory."""
    rng = np.random.default_rng(seed)
    data = bytearray(file[0].read_bytes())
    start = data.find(b"con_4", 30_000 * seed) + 5
    data[start : start + 12] = rng.integers(0, 256, 12, dtype=np.uint8).tobytes()
    (tmp_path / "noisy.dat").write_bytes(data)
    with pytest.raises(WeightsError):
        resnet.read(tmp_path / "noisy.dat")


# the network


def test_halving_block_extends_with_zeros() -> None:
    """Odd sizes: the shortcut is smaller in space or in channels, and what is missing counts as zero at the far end."""
    block = Block(2, 3, True)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(1, 2, 8, 8) + 1
    y = block(x)
    assert y.shape == (1, 3, 4, 4), "3x3 stride 2 without padding gives 3, the pooled shortcut 4"
    assert torch.allclose(y[:, :2], torch.nn.functional.avg_pool2d(x, 2))
    assert (y[:, 2] == 0).all()


def test_network_shape() -> None:
    net = random_net()
    assert len(net.blocks) == 14
    with torch.no_grad():
        assert net(torch.rand(2, 3, 150, 150) * 2 - 1).shape == (2, 128)


# sampling


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.6, 0.3, 0.11])
def test_sample_is_sub_pixel_right(scale: float) -> None:
    y, x = torch.meshgrid(torch.arange(600) + 0.5, torch.arange(700) + 0.5, indexing="ij")
    picture = torch.stack([x, y, x * 0])[None]
    cosine, sine = np.cos(0.4) * scale, np.sin(0.4) * scale
    matrix = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1.0]])
    matrix[:2, 2] = 20 - matrix[:2, :2] @ [350.2, 300.9]
    shown = sample(picture, matrix, 40)[0, :2].permute(1, 2, 0).numpy()
    v, u = np.mgrid[0:40, 0:40] + 0.5
    truth = geometry.apply(np.linalg.inv(matrix), np.stack([u.ravel(), v.ravel()], -1)).reshape(40, 40, 2)
    inside = ((truth > 12) & (truth < [688, 588])).all(-1)
    assert np.abs(shown - truth)[inside].max() < 0.02 / min(scale, 1)


def test_sample_takes_one_matrix_each() -> None:
    pictures = torch.rand(2, 3, 50, 50)
    moves = np.stack([np.eye(3), np.array([[1, 0, -7], [0, 1, -3], [0, 0, 1.0]])])
    out = sample(pictures, moves, 32)
    torch.testing.assert_close(out[0], pictures[0, :, :32, :32], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1], pictures[1, :, 3:35, 7:39], atol=1e-5, rtol=0)


def random_embedder() -> Embedder:
    return Embedder("resnet", random_net(), 128, 150, lambda mesh, points: resnet.chip_matrix(mesh), resnet.centre())


def test_gradient_reaches_pixels() -> None:
    pixels = torch.rand(1, 3, 200, 200, requires_grad=True)
    vector = random_embedder().differentiable(pixels, np.diag([0.8, 0.8, 1]))
    torch.testing.assert_close(vector.norm(dim=1), torch.ones(1))
    vector[0, 0].backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    assert pixels.grad[..., 195:, 195:].abs().sum() == 0, "outside the chip"


def test_call_is_the_differentiable_path() -> None:
    """A picture and its whole as a tensor give the same vector, though the call only looks at a part of it."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    mesh = rng.uniform(0, 1, (468, 3))
    mesh[:, :2] = mesh[:, :2] * 90 + [150, 100]
    face = Face(np.zeros(4), 1.0, np.zeros((5, 2)), mesh)
    part = random_embedder()
    matrix = part.matrix(mesh, face.points)
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1
    np.testing.assert_allclose(part(rgb, face), part.differentiable(pixels, matrix)[0].detach(), atol=1e-4)


def test_resnet_needs_a_mesh(need: Callable[..., None]) -> None:
    need("identity-resnet")
    with pytest.raises(UsageError, match="landmark stage"):
        perception.load("identity", "resnet").matrix(None, np.zeros((5, 2)))


# parts


def test_missing_or_unknown_embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="pull identity-resnet"):
        perception.load("identity")
    with pytest.raises(UsageError, match=r"arcface, arcface-r100, insightface.*resnet"):
        perception.load("identity", "facenet")
    assert [one.usable for one in embed.available()] == [False] * len(embed.LOADERS)


@pytest.mark.parametrize(
    ("name", "keys", "file"),
    [("arcface", "arcface_iresnet50", "backbone.pth"), ("ir-se-50", "arcface_irse50", "model_ir_se50.pth")],
)
def test_published_networks_take_over(
    name: str, keys: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MATTFACE_HOME", str(tmp_path))
    shapes = json.loads((GOLDEN / f"{keys}_keys.json").read_text())
    torch.save(seeded_state(shapes, False), tmp_path / file)
    adopt(tmp_path / file)
    part = perception.load("identity")
    assert (part.name, part.dim, part.size) == (name, 512, 112)
    points = ARCFACE_112
    np.testing.assert_allclose(part.matrix(None, points + 0.5), np.eye(3), atol=1e-9)
    rgb = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    vector = part(rgb, Face(np.zeros(4), 1.0, points + 0.5))
    assert vector.shape == (512,) and np.isclose(np.linalg.norm(vector), 1, atol=1e-5)


# with the real weights


@pytest.fixture(scope="module")
def real(need: Callable[..., None]) -> Embedder:
    need("identity-resnet")
    return perception.load("identity", "resnet")


def test_same_as_dlib(real: Embedder, faces: dict) -> None:
    dlib = pytest.importorskip("dlib", reason="dlib is not installed (pip install dlib-bin)")
    reference = dlib.face_recognition_model_v1(str(weights.find("identity-resnet")))
    for rgb, face in faces.values():
        corners = [face.mesh[list(k), :2].mean(0) - 0.5 for k in resnet.CHIP_POINTS]
        order = [corners[k] for k in (2, 3, 0, 1, 4)]  # dlib starts at the eye on the right of the picture
        whole = [dlib.point(*(int(n) for n in np.round(p))) for p in order]
        shape = dlib.full_object_detection(dlib.rectangle(*(int(n) for n in face.box)), whole)
        chip = dlib.get_face_chip(rgb, shape, resnet.SIZE, resnet.PADDING)
        expected = np.array(reference.compute_face_descriptor(chip))
        got = real.network(torch.from_numpy(chip).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
        print(f"identity ResNet against dlib: {np.abs(got - expected).max():.1e}")
        assert np.abs(got - expected).max() < 1e-3
        from_picture = np.array(reference.compute_face_descriptor(rgb, shape)) - resnet.centre()
        assert real(rgb, face) @ from_picture / np.linalg.norm(from_picture) > 0.93, "our chip is dlib's chip"


def test_people_differ_and_pictures_of_one_agree(real: Embedder, faces: dict) -> None:
    vectors = {who: real(rgb, face) for who, (rgb, face) in faces.items()}
    assert vectors["astronaut"] @ vectors["hopper"] < 0.5
    for who, (rgb, face) in faces.items():
        dark = (rgb * 0.7).astype(np.uint8)
        assert vectors[who] @ real(dark, face) > 0.9
        crop = align.cut(rgb, face)
        again = real.differentiable(crop.pixels, real.matrix(crop.mesh, crop.points))[0].numpy()
        assert vectors[who] @ again > 0.95
