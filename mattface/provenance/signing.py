"""Certificates and keys behind signed manifests: the user's, or one that this machine makes for itself."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mattface.errors import InputError, MattfaceError, UsageError
from mattface.provenance.settings import Signing, folder

if TYPE_CHECKING:
    from cryptography import x509

OWN = "mattface local certificate"
YEARS = 10
USES = ("1.3.6.1.5.5.7.3.4", "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1")
"""Extended key usages that C2PA takes for signing: e-mail protection, document signing, C2PA claim signing."""
PACKAGES = {"c2pa": "c2pa-python", "cryptography": "cryptography"}
"""Module -> package."""
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


@dataclass(frozen=True)
class Signer:
    """A checked signer.

    Attributes:
        native: c2pa's signer.
        own: the certificate is this machine's, which readers cannot trust.
        note: a sentence for the user, or "".
    """

    native: Any
    own: bool
    note: str = ""


def require_packages() -> None:
    """Finds out whether the packages behind manifests are installed.

    Raises:
        MattfaceError: one is not; the message says what to type.
    """
    missing = [name for module, name in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise MattfaceError(
            f"signed manifests need {' and '.join(missing)}, not installed. Type: pip install {' '.join(missing)}"
        )


def check(signing: Signing) -> None:
    """Finds out whether manifests can be signed, before any work is done.

    Raises:
        UsageError: key without chain or the other way round, or an unknown algorithm.
        InputError: a file cannot be read, is no certificate or key, is encrypted, expired, does not fit the other one,
            or the certificate is not for signing.
    """
    signer(signing)


def signer(signing: Signing) -> Signer:
    """Builds a signer.

    Raises:
        UsageError, InputError: as `check`.
        MattfaceError: a package is missing.
    """
    require_packages()
    import c2pa

    note = ""
    key: bytes | Callable[[bytes], bytes]
    if signing.chain is None and signing.key is None:
        chain, key, note = _own()
        algorithm = "es256"
    elif signing.chain is None or signing.key is None:
        missing = "certificate chain" if signing.chain is None else "private key"
        raise UsageError(f"signing needs a certificate chain and its private key; the {missing} is missing.")
    else:
        chain = _read(signing.chain)
        certificate = _checked(chain, Path(signing.chain))
        algorithm = signing.algorithm or _algorithm(certificate)
        key = signing.key if callable(signing.key) else _key(signing.key, certificate)
    kind = _kind(algorithm)
    if callable(key):
        native = c2pa.Signer.from_callback(key, kind, chain.decode(), signing.timestamp)
    else:
        stamp = signing.timestamp.encode() if signing.timestamp else None
        native = c2pa.Signer.from_info(c2pa.C2paSignerInfo(kind, chain, key, stamp))
    return Signer(native, signing.chain is None, note)


def _kind(algorithm: str) -> Any:
    import c2pa

    try:
        return c2pa.C2paSigningAlg[algorithm.upper()]
    except KeyError:
        known = ", ".join(name.lower() for name in c2pa.C2paSigningAlg.__members__)
        raise UsageError(f"expected a signing algorithm out of {known}; got {algorithm!r}.") from None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: expected a readable PEM file; {error.strerror or error}. Check the path.") from error


def _checked(chain: bytes, path: Path) -> x509.Certificate:
    """The signer's own certificate, the first of the chain, if it may sign manifests today."""
    from cryptography import x509

    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError as error:
        raise InputError(f"{path}: expected a PEM certificate chain; {error}.") from error
    now = datetime.now(UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        span = f"{first.not_valid_before_utc:%Y-%m-%d} to {first.not_valid_after_utc:%Y-%m-%d}"
        raise InputError(f"{path}: expected a certificate that is valid today; this one is from {span}. Renew it.")
    try:
        uses = first.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        allowed = {use.dotted_string for use in uses} & set(USES)
    except x509.ExtensionNotFound:
        allowed = set()
    if not allowed:
        raise InputError(
            f"{path}: expected a signing certificate (extended key usage e-mail protection, document signing or C2PA); "
            "this one is for something else. Ask its issuer for one that may sign documents."
        )
    return first


def _algorithm(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPublicKey):
        return "ps256"
    raise InputError("certificate: expected a key of ECDSA P-256, P-384, P-521, RSA or Ed25519; it has another.")


def _key(path: str | os.PathLike[str], certificate: x509.Certificate) -> bytes:
    """A private key as PKCS#8 PEM, if it fits the certificate."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
    )

    try:
        key = load_pem_private_key(_read(path), None)
    except TypeError as error:
        raise InputError(
            f"{path}: expected a private key without a password; this one is encrypted. Decrypt it, or sign by a "
            "callback from Python."
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: expected a PEM private key; it is none, or damaged.") from error
    public = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*public) != certificate.public_key().public_bytes(*public):
        raise InputError(f"{path}: expected the private key of the certificate; this is the key of another.")
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _own() -> tuple[bytes, bytes, str]:
    """This machine's chain and key, made on first use; of this run only where they cannot be kept."""
    place = folder() / "certificate"
    kept = _kept(place)
    if kept is not None:
        return *kept, ""
    chain, key = _made()
    fresh = place.with_name(f".certificate-{secrets.token_hex(6)}")
    try:
        fresh.mkdir(parents=True, mode=0o700)
        (fresh / "chain.pem").write_bytes(chain)
        descriptor = os.open(fresh / "key.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key)
        if place.exists():  # expired or damaged
            place.rename(place.with_name(f"certificate-old-{secrets.token_hex(6)}"))
        fresh.rename(place)
    except OSError as error:
        with suppress(OSError):
            shutil.rmtree(fresh, ignore_errors=True)
        kept = _kept(place)  # another process was faster
        if kept is not None:
            return *kept, ""
        return chain, key, f"the local certificate could not be kept in {place} ({error}); it is of this run only"
    return chain, key, ""


def _kept(place: Path) -> tuple[bytes, bytes] | None:
    """The chain and key in a folder, if they are whole and valid."""
    try:
        chain = (place / "chain.pem").read_bytes()
        return chain, _key(place / "key.pem", _checked(chain, place / "chain.pem"))
    except (OSError, InputError):
        return None


def _made() -> tuple[bytes, bytes]:
    """A fresh chain of a root, whose key is thrown away, and a signer; and the signer's key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    organisation, common = NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME
    signer_name, root_name = (
        x509.Name([x509.NameAttribute(organisation, OWN), x509.NameAttribute(common, f"{OWN}, {who}")])
        for who in ("signer", "root")
    )
    now = datetime.now(UTC)
    chain = b""
    for name, key, is_root in ((signer_name, own, False), (root_name, root, True)):
        built = (
            x509.CertificateBuilder(root_name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=365 * YEARS))
            .add_extension(x509.BasicConstraints(is_root, 0 if is_root else None), True)
            .add_extension(x509.KeyUsage(not is_root, False, False, False, False, is_root, is_root, False, False), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        )
        if not is_root:
            built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        chain += built.sign(root, SHA256()).public_bytes(Encoding.PEM)
    return chain, own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
