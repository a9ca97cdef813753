"""Signed manifests: whole after writing, altered after any change; keys that will not do; nothing is ever lost."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mattface import picture_io, provenance
from mattface.errors import InputError, MattfaceError, UsageError
from mattface.provenance import Settings, Signing, Swapped, journal, manifest, signing
from mattface.provenance.laying import Laying, seal
from mattface.vocabulary import Picture

ENDINGS = [".png", ".jpg", ".webp", ".tif"]


def picture(record: Swapped | None = None, kind: type = np.uint8) -> Picture:
    values = np.random.default_rng(0).integers(0, 200, (48, 64, 3)).astype(kind)
    return Picture(values, metadata={} if record is None else {provenance.RECORD: record})


def record(**changes: object) -> Swapped:
    stated = {"target_hash": "1" * 64, "source_hashes": ("2" * 64,), "method": "mesh", "weights": "none"}
    return Swapped(np.zeros((48, 64), np.float32), (), **(stated | changes))


def flipped(path: Path, at: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    return bytes(data)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_manifest_is_whole_after_writing_and_altered_after_a_change(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    picture_io.write(picture(record()), path)
    found = manifest.read(path)
    assert (found.state, found.reasons) == ("untrusted", ("signingCredential.untrusted",))
    data = path.read_bytes()
    pixel = len(data) - 300 if ending in (".png", ".jpg") else len(data) // 4
    for at in (pixel, data.find(b"AISystemUsed"), data.find(b"target_sha256") + 20):
        assert manifest.read_bytes(flipped(path, at), ending).state == "altered"


def test_a_manifest_moved_to_another_picture_is_noticed(tmp_path: Path) -> None:
    for name, value, mark in (("a", 10, "c2pa"), ("b", 20, "none")):
        picture_io.write(Picture(np.full((8, 8, 3), value, np.uint8)), tmp_path / f"{name}.png", mark=mark)
    first, second = ((tmp_path / f"{name}.png").read_bytes() for name in "ab")
    start = first.find(b"caBX") - 4
    chunk = first[start : start + 12 + int.from_bytes(first[start : start + 4], "big")]
    assert manifest.read_bytes(first, ".png").state == "untrusted"
    assert manifest.read_bytes(second[:start] + chunk + second[start:], ".png").state == "altered"


def test_it_says_what_was_done_in_words_that_other_tools_know(tmp_path: Path) -> None:
    target = tmp_path / "target.jpg"
    picture_io.write(picture(), target, mark=False)
    made = record(target=target)
    picture_io.write(picture(made), tmp_path / "a.png", mark=Settings(consent="agreed on 1 May"))
    with c2pa.Reader(tmp_path / "a.png") as reader:
        told = json.loads(reader.json())
    active = told["manifests"][told["active_manifest"]]
    said = {one["label"]: one["data"] for one in active["assertions"]}
    actions = {action["action"]: action for action in said["c2pa.actions.v2"]["actions"]}
    assert set(actions) == {"c2pa.opened", "c2pa.edited"}
    assert actions["c2pa.edited"]["digitalSourceType"] == provenance.DIGITAL_SOURCE_TYPE
    assert said["mattface.swap"]["consent"] == "agreed on 1 May"
    assert said["mattface.swap"]["source_sha256"] == ["2" * 64]
    kinds = {one["relationship"]: one for one in active["ingredients"]}
    assert kinds["parentOf"]["title"] == "target.jpg"
    assert kinds["inputTo"]["instance_id"] == "sha256:" + "2" * 64
    assert "thumbnail" not in json.dumps(told)


def test_the_targets_own_manifest_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    picture_io.write(picture(), target, mark="c2pa")
    picture_io.write(picture(record(target=target)), tmp_path / "a.png", mark="c2pa")
    with c2pa.Reader(tmp_path / "a.png") as reader:
        assert len(json.loads(reader.json())["manifests"]) == 2


def test_a_broken_manifest_of_the_target_loses_nothing(tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    picture_io.write(picture(), target, mark="c2pa")
    target.write_bytes(flipped(target, target.read_bytes().find(b"c2pa.signature") + 40))
    assert manifest.read(target).state == "altered"
    picture_io.write(picture(record(target=target)), tmp_path / "a.png")
    assert manifest.read(tmp_path / "a.png").state == "untrusted"
    target.write_bytes(b"no picture at all")
    notes = picture_io.write(picture(record(target=target)), tmp_path / "b.png")
    assert manifest.read(tmp_path / "b.png").state == "untrusted"
    assert len(notes) <= 1


def test_files_that_hold_no_manifest_get_one_beside_them(tmp_path: Path) -> None:
    plate = tmp_path / "plate.exr"
    plate.write_bytes(b"v/1\x01" + bytes(500))
    laying = Laying(Settings(("c2pa",)))
    seal(plate, plate, laying, "1")
    assert laying.states["c2pa"].startswith("laid")
    found = manifest.read(plate)
    assert (found.state, found.detached) == ("untrusted", True)
    plate.write_bytes(b"v/1\x01" + bytes(499) + b"x")
    assert manifest.read(plate).state == "altered"


@pytest.mark.parametrize("data", [b"", b"rubbish", b"\x89PNG\r\n\x1a\nrubbish"])
def test_what_is_no_picture_has_no_manifest(data: bytes) -> None:
    assert manifest.read_bytes(data, ".png").manifest is None


def chain(folder: Path, days: int = 30, use: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.EMAIL_PROTECTION,
          password: bytes | None = None) -> tuple[Path, Path]:  # fmt: skip
    """A root and a signer's certificate, and the signer's key, as files."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "studio"), x509.NameAttribute(NameOID.COMMON_NAME, n)])
        for n in ("root", "somebody")
    ]
    now, made = datetime.now(UTC), []
    for name, key, is_root in ((names[1], own, False), (names[0], root, True)):
        built = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=60))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), True)
            .add_extension(x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        )
        if not is_root and use is not None:
            built = built.add_extension(x509.ExtendedKeyUsage([use]), False)
        made.append(built.sign(root, SHA256()).public_bytes(Encoding.PEM))
    how = BestAvailableEncryption(password) if password else NoEncryption()
    (folder / "chain.pem").write_bytes(b"".join(made))
    (folder / "key.pem").write_bytes(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    (folder / "root.pem").write_bytes(made[1])
    return folder / "chain.pem", folder / "key.pem"


def test_somebody_elses_certificate_is_trusted_by_who_trusts_its_root(tmp_path: Path) -> None:
    files = chain(tmp_path)
    laid = picture_io.write_with_origin(picture(), tmp_path / "a.png", mark=Settings(signing=Signing(*files)))
    assert laid.layers["c2pa"] == "laid"
    assert manifest.read(tmp_path / "a.png").state == "untrusted"
    found = manifest.read(tmp_path / "a.png", (tmp_path / "root.pem").read_bytes())
    assert found.state == "valid"
    assert found.manifest["signature_info"]["common_name"] == "somebody"


def test_a_function_may_sign(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    certificate, key = chain(tmp_path)
    private, asked = load_pem_private_key(key.read_bytes(), None), []

    def sign(data: bytes) -> bytes:
        asked.append(data)
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    picture_io.write(picture(), tmp_path / "a.png", mark=Settings(signing=Signing(certificate, sign)))
    assert asked
    assert manifest.read(tmp_path / "a.png", (tmp_path / "root.pem").read_bytes()).state == "valid"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"days": -1}, "valid today"),
        ({"use": ExtendedKeyUsageOID.SERVER_AUTH}, "signing certificate"),
        ({"use": None}, "signing certificate"),
        ({"password": b"secret"}, "without a password"),
    ],
)
def test_certificates_and_keys_that_will_not_do_are_named(tmp_path: Path, options: dict, words: str) -> None:
    files = chain(tmp_path, **options)
    with pytest.raises(InputError, match=words):
        signing.check(Signing(*files))
    laid = picture_io.write_with_origin(picture(), tmp_path / "a.png", mark=Settings(signing=Signing(*files)))
    assert words in laid.layers["c2pa"]
    assert [note for note in laid.notes if words in note]
    assert picture_io.read_mark(tmp_path / "a.png") is not None, "the picture and the other layers are there"


def test_wrong_keys_and_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificate, key = chain(tmp_path)
    _, other = chain(tmp_path / "other")
    (tmp_path / "text.pem").write_text("hello")
    for pair, words in [
        ((certificate, other), "key of another"),
        ((certificate, tmp_path / "text.pem"), "PEM private key"),
        ((tmp_path / "text.pem", key), "PEM certificate chain"),
        ((tmp_path / "none.pem", key), "readable PEM file"),
    ]:
        with pytest.raises(InputError, match=words):
            signing.check(Signing(*pair))
    for signer in (Signing(certificate), Signing(key=key), Signing(certificate, key, "rot13")):
        with pytest.raises(UsageError):
            signing.check(signer)


def test_without_a_time_stamp_authority_the_rest_is_signed(tmp_path: Path) -> None:
    settings = Settings(signing=Signing(timestamp="http://127.0.0.1:9/"))
    notes = picture_io.write(picture(), tmp_path / "a.png", mark=settings)
    assert [note for note in notes if "without a time stamp" in note]
    assert manifest.read(tmp_path / "a.png").state == "untrusted"


def test_the_own_key_is_made_once_and_kept_from_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATTFACE_PROVENANCE", str(tmp_path / "own"))
    first = signing._own()
    assert signing._own() == first
    assert (tmp_path / "own" / "certificate" / "key.pem").stat().st_mode & 0o777 == 0o600


def test_folders_that_cannot_be_written_cost_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MATTFACE_PROVENANCE", str(tmp_path / "file"))
    notes = picture_io.write(picture(record()), tmp_path / "a.png")
    assert [note for note in notes if "of this run only" in note]
    assert [note for note in notes if "was not logged" in note]
    assert manifest.read(tmp_path / "a.png").state == "untrusted"


def test_the_log_finds_a_manifest_again(tmp_path: Path) -> None:
    laid = picture_io.write_with_origin(picture(record()), tmp_path / "a.png")
    entry = journal.find(laid.payload)
    assert entry["output"] == str(tmp_path / "a.png") and entry["source_sha256"] == ["2" * 64]
    assert "manifest" in entry
    assert journal.place(laid.payload).stat().st_mode & 0o777 == 0o600
    journal.place(laid.payload).write_text("{")
    assert journal.find(laid.payload) is None


def test_layers_are_all_on_unless_switched_off(tmp_path: Path) -> None:
    assert Settings.of(True).layers == Settings().layers == ("xmp", "c2pa", "mark")
    assert Settings.of(False).layers == Settings.of("none").layers == ()
    assert Settings.of("c2pa,xmp").layers == ("xmp", "c2pa")
    with pytest.raises(UsageError, match="halo"):
        Settings.of(["halo"])
    laid = picture_io.write_with_origin(picture(record()), tmp_path / "a.png", mark="xmp")
    assert (laid.layers["xmp"], laid.layers["c2pa"], laid.layers["mark"]) == ("laid", "off", "off")
    assert str(laid) == "xmp: laid, c2pa: off, mark: off"
    assert manifest.read(tmp_path / "a.png").state == "absent"


def test_a_mark_without_a_face_is_said_not_hidden(tmp_path: Path) -> None:
    laid = picture_io.write_with_origin(picture(record()), tmp_path / "a.png")
    assert laid.layers["mark"] == "absent: no swapped face in the picture"
    assert manifest.read(tmp_path / "a.png").payload is None, "the manifest names no mark that is not there"
    laid = picture_io.write_with_origin(picture(), tmp_path / "b.png")
    assert "no swapped face" in laid.layers["mark"]


def test_consent_is_a_text_or_a_documents_hash(tmp_path: Path) -> None:
    (tmp_path / "form.pdf").write_bytes(b"signed")
    assert provenance.consent_note("yes, by mail") == "yes, by mail"
    assert provenance.consent_note(str(tmp_path / "form.pdf")).startswith("form.pdf, SHA-256 ")
    with pytest.raises(InputError, match="4096"):
        provenance.consent_note("x" * 5000)


def test_without_the_package_the_other_layers_are_laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    laid = picture_io.write_with_origin(picture(), tmp_path / "a.png")
    assert laid.layers["c2pa"].startswith("absent") and laid.layers["xmp"] == "laid"
    assert "pip install c2pa-python" in laid.notes[0]
    with pytest.raises(MattfaceError, match="pip install c2pa-python"):
        manifest.read(tmp_path / "a.png")


def test_an_address_that_the_target_names_is_never_asked(tmp_path: Path) -> None:
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        xmp = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description rdf:about="" xmlns:dcterms="http://purl.org/dc/terms/" '
            f'dcterms:provenance="http://127.0.0.1:{server.server_port}/a.c2pa"/></rdf:RDF></x:xmpmeta>'
        )
        target = tmp_path / "target.jpg"
        picture_io.write(replace(picture(), metadata={"xmp": xmp.encode()}), target, mark=False)
        picture_io.write(picture(record(target=target)), tmp_path / "a.png")
        found = manifest.read(target)
        server.shutdown()
    assert asked == []
    assert found.state == "absent" and "elsewhere" in found.reasons[0]
    assert manifest.read(tmp_path / "a.png").state == "untrusted"


def test_a_leftover_beside_a_signed_file_does_not_speak_for_it(tmp_path: Path) -> None:
    picture_io.write(picture(), tmp_path / "a.png")
    (tmp_path / "a.png.c2pa").write_bytes(b"of an earlier file")
    assert manifest.read(tmp_path / "a.png").state == "untrusted"
