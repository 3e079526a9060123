"""Backends behind TLS: certificates are checked against the CA that the gateway was given, names included."""

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.gateway.conftest import StartGateway
from tests.gateway.platform import Pushed, RunningGateway
from tests.gateway.raw_client import ask, chat
from tests.gateway.scripted_upstream import answer_politely, run_upstream


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self._certificate = self._sign(self._name, self._key.public_key(), None)

    def write(self, path: Path) -> Path:
        path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def server_context(self, directory: Path, address: str) -> ssl.SSLContext:
        """What a server at an address needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "backend")])
        certificate = self._sign(name, key.public_key(), address)
        path = directory / f"{address}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, address: str | None) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=address is None, path_length=None), critical=True)
        )
        if address is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


async def start(start_gateway: StartGateway, pushed: Pushed, url: str, ca_file: Path | None) -> RunningGateway:
    await pushed.everything(url)
    gateway = await start_gateway(gateway_tls_ca_file=ca_file)
    await gateway.until_ready()
    return gateway


async def test_a_backend_with_a_certificate_of_the_given_authority_is_used(
    start_gateway: StartGateway, pushed: Pushed, tmp_path: Path
) -> None:
    authority = Authority()
    context = authority.server_context(tmp_path, "127.0.0.1")
    async with run_upstream(answer_politely, context) as upstream:
        gateway = await start(start_gateway, pushed, upstream.url, authority.write(tmp_path / "ca.pem"))
        for _ in range(2):
            assert (await ask(gateway.port, chat(), key=pushed.key)).status == 200
            assert (await ask(gateway.port, chat(stream=True), key=pushed.key)).text == "Hello"
        assert upstream.open_sessions == 1
        await gateway.until_nothing_is_held()


@pytest.mark.parametrize(("address", "trusted"), [("127.0.0.2", True), ("127.0.0.1", False)], ids=["name", "authority"])
async def test_a_certificate_of_another_name_or_authority_is_refused(
    start_gateway: StartGateway, pushed: Pushed, tmp_path: Path, address: str, trusted: bool
) -> None:
    authority = Authority()
    context = authority.server_context(tmp_path, address)
    ca_file = authority.write(tmp_path / "ca.pem") if trusted else Authority().write(tmp_path / "other.pem")
    async with run_upstream(answer_politely, context) as upstream:
        gateway = await start(start_gateway, pushed, upstream.url, ca_file)
        answer = await ask(gateway.port, chat(), key=pushed.key)
        assert (answer.status, answer.error["code"]) == (503, "upstream_unreachable")
        assert upstream.received == []
        await gateway.until_nothing_is_held()
