"""Keys and certificates of a deployment: TLS for what travels, and a key by which the SuperLink knows a SuperNode.

Made anew for each deployment, by the `cryptography` package, which Flower brings along. A private key is in a file that
only its owner can read.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOOPBACK = ("127.0.0.1", "localhost", "::1")
DAYS = 30  # that the certificates hold
EARLIER = timedelta(hours=1)  # that they begin before now: another machine's clock may be slow


class Certificates(NamedTuple):
    """Files: the authority's certificate, which every client needs, and the server's certificate and private key."""

    authority: Path
    server: Path
    key: Path


class NodeKey(NamedTuple):
    """Files: a SuperNode's private key, which stays with it, and its public key, which the SuperLink is told."""

    private: Path
    public: Path


def make_certificates(folder: Path, hosts: Sequence[str] = LOOPBACK) -> Certificates:
    """Make an authority and, signed by it, the certificate of a server that is reached by these names or addresses. The
    authority's private key is thrown away. ValueError where there is no host."""
    if not hosts:
        raise ValueError("hosts=() must be names or addresses of the server, one at least")
    folder.mkdir(parents=True, exist_ok=True)
    of_authority = ec.generate_private_key(ec.SECP384R1())
    of_server = ec.generate_private_key(ec.SECP384R1())
    name = common_name("fedecouple_lite authority")
    can_sign = x509.BasicConstraints(ca=True, path_length=0)
    authority = unsigned(name, name, of_authority).add_extension(can_sign, critical=True)
    places = x509.SubjectAlternativeName([as_general_name(host) for host in hosts])
    cannot_sign = x509.BasicConstraints(ca=False, path_length=None)
    server = unsigned(common_name(hosts[0]), name, of_server).add_extension(cannot_sign, critical=True)
    server = server.add_extension(places, critical=False)
    made = Certificates(folder / "authority.crt", folder / "server.crt", folder / "server.key")
    made.authority.write_bytes(pem(authority.sign(of_authority, hashes.SHA256())))
    made.server.write_bytes(pem(server.sign(of_authority, hashes.SHA256())))
    write_private(made.key, of_server, serialization.PrivateFormat.PKCS8)
    return made


def common_name(name: str) -> x509.Name:
    """A certificate's name that is only a name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    """A certificate of this key, to be signed."""
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - EARLIER).not_valid_after(now + timedelta(days=DAYS))


def as_general_name(host: str) -> x509.GeneralName:
    """A host as a certificate names it: an address, or a name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem(certificate: x509.Certificate) -> bytes:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def make_node_key(folder: Path, name: str) -> NodeKey:
    """Make the pair of keys of a SuperNode: an elliptic curve's, as OpenSSH writes them, which Flower asks for."""
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    made = NodeKey(folder / f"{name}.key", folder / f"{name}.pub")
    write_private(made.private, key, serialization.PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    made.public.write_bytes(public)
    return made


def write_private(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    """Write a private key to a new file that only its owner can read, from its first byte on."""
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
