"""A server that answers exactly the bytes that a test wants, and remembers what it was sent."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.base import clock

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Raw:
    """What a server was sent, and what it says."""

    def __init__(self, answer: bytes | Answer = OK) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.names: list[str | None] = []  # that TLS clients asked for
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            size = next((int(line[16:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
            self.requests.append(head + await reader.readexactly(size))
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(writer)
        with suppress(OSError):
            writer.close()


@asynccontextmanager
async def listening(raw: Raw, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    if tls:
        tls.sni_callback = lambda _socket, name, _context: raw.names.append(name)
    server = await asyncio.start_server(raw.serve, host, 0, ssl=tls)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()


def certified(tmp: str, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's side with a certificate for these names, and the side of a client that trusts nobody else."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    alternatives = [x509.DNSName(n) if n[-1:].isalpha() else x509.IPAddress(ip_address(n)) for n in names]
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1)).not_valid_after(clock.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    path = f"{tmp}/both.pem"
    with open(path, "wb") as file:
        file.write(made.public_bytes(serialization.Encoding.PEM))
        file.write(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ))  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())
