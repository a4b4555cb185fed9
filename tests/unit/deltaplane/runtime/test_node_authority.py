"""What the CA for nodes can do, by real handshakes: certify nodes, and nothing else."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from deltaplane.certs import files, issuing
from deltaplane.errors import DeltaplaneError, Forbidden, Refused, Unavailable
from deltaplane.runtime import authorising, rpc, tls
from deltaplane.runtime.authorising import Authoriser, May, Rule
from deltaplane.runtime.roles import Role
from tests.trust import Trust, Unchecked, trust
from tests.unit.deltaplane.runtime.conftest import METHODS, SERVICE, Echo, ask


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return trust(tmp_path_factory.mktemp("ca") / "ca")


@pytest.fixture(autouse=True)
def _echo_is_for_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule(roles=frozenset({Role.BRIDGE}), node=May.YES)
    table = {**authorising.TABLE, **{f"{SERVICE}/{method}": rule for method in METHODS}}
    monkeypatch.setattr(authorising, "TABLE", table)


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[rpc.ErrorInterceptor(), Authoriser()])
    Echo().register(server)
    ca, key, chain = ((folder / it).read_bytes() for it in (tls.CA, tls.KEY, tls.CERTIFICATE))
    # Not ours, which take no certificate that nobody would believe.
    credentials = grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def outcome(target: str, folder: Path, server: Role = Role.IPAM) -> DeltaplaneError | None:
    async with rpc.channel(target, Unchecked(folder, server)) as channel:
        try:
            await ask(channel, "Unary")
        except grpc.aio.AioRpcError as error:
            return rpc.translate(error)
    return None


async def test_a_node_is_believed(ca: Trust) -> None:
    async with serving(ca.issue("ipam")) as target:
        assert (
            await outcome(target, ca.issue_as_node_authority("node/n1", "node.deltaplane")) is None
        )


async def test_no_other_role_is_believed(ca: Trust) -> None:
    async with serving(ca.issue("ipam")) as target:
        for role in set(Role) - {Role.NODE}:
            error = await outcome(target, ca.issue_as_node_authority(role, "node.deltaplane"))
            assert isinstance(error, Forbidden), role
            assert f"a CA for nodes has made this certificate of {role}" in str(error)


def disguised(ca: Trust, change: Callable[[str], str], kind: _ASN1Type) -> Path:
    """An admin's certificate whose issuer is written otherwise than the CA writes itself."""
    authority = files.read_node_authority(ca.node_authority())
    parent = x509.load_pem_x509_certificate(authority.certificate)
    [name] = parent.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    issuer = x509.NameAttribute(NameOID.COMMON_NAME, change(str(name.value)), _type=kind)
    key, now = ec.generate_private_key(ec.SECP256R1()), issuing.now()
    uri = x509.UniformResourceIdentifier("spiffe://deltaplane/admin")
    made = (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([issuer]))
        .subject_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(issuing.decode_key(authority.key, "key"), hashes.SHA256())
    )
    folder = ca.folder / "disguised"
    pem = made.public_bytes(serialization.Encoding.PEM)
    files.write(
        folder,
        {
            tls.KEY: issuing.encode_key(key),
            tls.CA: (ca.folder / tls.CA).read_bytes(),
            tls.CERTIFICATE: pem + authority.certificate,
        },
    )
    return folder


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (str.upper, _ASN1Type.UTF8String),
        (lambda name: name.replace(" ", "   ") + " ", _ASN1Type.PrintableString),
        (str.title, _ASN1Type.BMPString),
        (str.upper, _ASN1Type.UniversalString),
    ],
    ids=["case", "spaces", "16 bits", "32 bits"],
)
async def test_a_name_that_is_written_otherwise_is_known(
    ca: Trust, change: Callable[[str], str], kind: _ASN1Type
) -> None:
    """Who verifies the chain takes them for the same."""
    async with serving(ca.issue("ipam")) as target:
        assert isinstance(await outcome(target, disguised(ca, change, kind)), Forbidden)


@pytest.mark.parametrize("name", ["ipam.deltaplane", "store-client.deltaplane", "admin"])
async def test_names_of_services_are_barred(ca: Trust, name: str) -> None:
    stolen = ca.issue_as_node_authority("node/n1", name)
    async with serving(ca.issue("ipam")) as target:
        assert isinstance(await outcome(target, stolen), Unavailable)
    with pytest.raises(Refused, match="permitted subtree violation"):
        tls.read(stolen)


@pytest.mark.parametrize("name", ["ipam.deltaplane", "node.deltaplane"])
async def test_nobody_takes_it_for_a_service(ca: Trust, name: str) -> None:
    async with serving(ca.issue_as_node_authority("ipam", name)) as target:
        assert isinstance(await outcome(target, ca.issue("bridge")), Unavailable)
    async with serving(ca.issue("ipam")) as target:
        assert await outcome(target, ca.issue("bridge")) is None


async def test_an_agent_with_it_is_taken_for_an_agent(ca: Trust) -> None:
    async with serving(ca.issue_as_node_authority("node/n1", "node.deltaplane")) as target:
        assert await outcome(target, ca.issue("bridge"), Role.NODE) is None
