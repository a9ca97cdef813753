"""mattface verify: every layer of any file, after whatever happened to it; and what was laid on pictures and videos."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mattface
from mattface import cli, picture_io, provenance, verification
from mattface.errors import InputError
from mattface.provenance import Swapped
from mattface.provenance.laying import Laying, settled
from mattface.vocabulary import Face, Picture


@pytest.fixture(scope="module")
def portrait(faces: dict[str, tuple[np.ndarray, Face]]) -> tuple[Picture, Swapped]:
    """The astronaut at twice her size, as if her face had been swapped."""
    import cv2

    from mattface import perception

    rgb, face = faces["astronaut"]
    rgb, face = cv2.resize(rgb, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), replace(face, mesh=face.mesh * 2)
    matte = np.zeros(rgb.shape[:2], np.float32)
    cv2.fillConvexPoly(matte, cv2.convexHull(face.mesh[:, :2].astype(np.int32)), 1.0)
    mesh = settled(perception.load("landmarks", "face-mesh"), rgb, face)
    record = Swapped(matte, (mesh,), source_hashes=("3" * 64,), method="mesh")
    return Picture(rgb, metadata={provenance.RECORD: record}), record


@pytest.fixture
def file(portrait: tuple[Picture, Swapped], tmp_path: Path) -> Path:
    picture_io.write(portrait[0], tmp_path / "swapped.png")
    return tmp_path / "swapped.png"


def states(told: dict) -> dict[str, str]:
    return {name: layer["state"] for name, layer in told["layers"].items()}


def test_a_fresh_file_has_every_layer(file: Path, portrait: tuple[Picture, Swapped]) -> None:
    told = mattface.verify(file)
    assert states(told) == {"xmp": "untrusted", "c2pa": "untrusted", "mark": "valid"}
    assert told["layers"]["mark"]["id"] == told["layers"]["c2pa"]["id"]
    assert told["log"]["output"] == str(file)
    after, before = picture_io.read(file).pixels, portrait[0].pixels
    outside = portrait[1].matte == 0
    assert np.array_equal(after[outside], before[outside])
    assert not np.array_equal(after, before)


def test_a_stripped_and_smaller_copy_is_found_again_in_the_log(file: Path, tmp_path: Path) -> None:
    image = Image.open(file).convert("RGB")
    image.crop((40, 20, 960, 940)).resize((660, 660)).save(tmp_path / "copy.jpg", quality=75)
    told = mattface.verify(tmp_path / "copy.jpg")
    assert states(told) == {"xmp": "absent", "c2pa": "absent", "mark": "valid"}
    assert told["log"]["method"] == "mesh" and told["log"]["source_sha256"] == ["3" * 64]


def test_a_mirrored_copy_is_read(file: Path, tmp_path: Path) -> None:
    picture_io.write(picture_io.read(picture_io.read(file).pixels[:, ::-1].copy()), tmp_path / "b.png", mark=False)
    assert states(mattface.verify(tmp_path / "b.png"))["mark"] == "valid"


def test_elsewhere_the_mark_is_untrusted(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.open(file).convert("RGB").save(tmp_path / "copy.png")
    monkeypatch.setenv("MATTFACE_PROVENANCE", str(tmp_path / "nothing"))
    told = mattface.verify(tmp_path / "copy.png")
    assert told["layers"]["mark"]["state"] == "untrusted" and told["log"] is None


def test_a_mark_under_the_manifest_of_another_picture_is_altered(
    file: Path, portrait: tuple[Picture, Swapped], tmp_path: Path
) -> None:
    pixels = picture_io.read(file).pixels
    record = portrait[1]
    picture_io.write(picture_io.read(pixels), tmp_path / "a.png", mark=False)
    laying = Laying(provenance.Settings(), record, payload=1)
    (tmp_path / "a.png").write_bytes(laying.sign((tmp_path / "a.png").read_bytes(), Path("a.png"), "1"))
    assert states(mattface.verify(tmp_path / "a.png"))["mark"] == "altered"


def test_untouched_pictures_carry_nothing(hopper: np.ndarray, tmp_path: Path, need: Callable[..., None]) -> None:
    need("centerface", "face-mesh")
    Image.fromarray(hopper).save(tmp_path / "a.png")
    told = mattface.verify(tmp_path / "a.png")
    assert states(told) == {"xmp": "absent", "c2pa": "absent", "mark": "absent"}
    assert told["layers"]["mark"]["faces"] == 1
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    assert mattface.verify(tmp_path / "b.png")["layers"]["mark"]["why"] == "no face was found"


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file of that name"):
        mattface.verify(tmp_path / "none.png")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(InputError, match="PNG"):
        mattface.verify(tmp_path / "a.png")


def test_the_command_tells_and_its_exit_code_too(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(file)]) == 0
    said = capsys.readouterr().out
    assert "c2pa  untrusted" in said and "mark  valid" in said and "written as" in said
    assert cli.main(["verify", str(file), "--json", "--no-faces"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"]["mark"] == {"state": "not looked for"}
    picture_io.write(Picture(np.full((32, 32, 3), 90, np.uint8)), tmp_path / "plain.png", mark=False)
    with pytest.raises(SystemExit, match="10"):
        cli.main(["verify", str(tmp_path / "plain.png"), "--no-faces"])
    data = bytearray(file.read_bytes())
    data[data.find(b"AISystemUsed")] ^= 1
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "changed.png").write_bytes(data)
    (tmp_path / "folder" / "broken.jpg").write_bytes(b"\xff\xd8\xffrubbish")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="11"):
        cli.main(["verify", str(tmp_path / "folder"), "--json", "--no-faces"])
    told = {Path(one["file"]).name: one for one in json.loads(capsys.readouterr().out)}
    assert told["changed.png"]["layers"]["c2pa"]["state"] == "altered"
    assert told["broken.jpg"]["notes"]


def test_other_tools_manifests_are_shown(tmp_path: Path) -> None:
    import c2pa

    from mattface.provenance import manifest
    from mattface.provenance.signing import signer

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    stated = {"claim_generator_info": [{"name": "Another Kit", "version": "7"}], "assertions": []}
    build = c2pa.Builder.from_json(json.dumps(stated))
    build.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.DIGITAL_CREATION)
    with open(tmp_path / "a.png", "rb") as source, open(tmp_path / "b.png", "w+b") as out:
        build.sign(signer(provenance.Signing()).native, "image/png", source, out)
    told = verification.verify(tmp_path / "b.png", mark=False)["layers"]["c2pa"]
    assert (told["state"], told["tool"]) == ("untrusted", "Another Kit 7")
    assert manifest.read(tmp_path / "b.png").payload is None


def test_trusted_certificates_must_be_some(tmp_path: Path, file: Path) -> None:
    (tmp_path / "a.pem").write_text("none")
    with pytest.raises(InputError, match="PEM certificates"):
        mattface.verify(file, tmp_path / "a.pem")


def test_a_video_is_marked_in_its_frames_and_on_its_file(
    portrait: tuple[Picture, Swapped], tmp_path: Path
) -> None:
    av = pytest.importorskip("av", reason="av is not installed")
    from mattface import __version__
    from mattface.provenance import Settings, watermark
    from mattface.provenance.laying import seal, tags

    picture, record = portrait
    laying = Laying(Settings(), record)
    marked = watermark.embed(picture.pixels, record.matte, record.meshes, laying.number)
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as out:
        out.metadata.update(tags(laying.settings.layers, __version__))
        stream = out.add_stream("libx264", rate=25, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(marked, "rgb24")))
        out.mux(stream.encode(None))
    seal(path, path, laying, __version__)
    told = mattface.verify(path)
    assert states(told) == {"xmp": "untrusted", "c2pa": "untrusted", "mark": "valid"}
    assert told["layers"]["mark"]["id"] == laying.payload
    data = bytearray(path.read_bytes())
    data[data.find(b"mdat") + 500] ^= 1
    path.write_bytes(data)
    assert verification.verify(path, mark=False)["layers"]["c2pa"]["state"] == "altered"
