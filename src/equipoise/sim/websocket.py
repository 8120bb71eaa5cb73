"""The little of WebSocket that echoing needs: the handshake's answer, and frames in and out.

Leaves out extensions, and fragments in what is sent.
Source: RFC 6455, sections 4.2.2 (handshake), 5.2 (frames) and 5.5 (control frames).
"""

import asyncio
import base64
import hashlib
import struct

from equipoise.base.errors import PeerError

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_MAX_FRAME_BYTES = 1 << 20
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def accept_key(key: str) -> str:
    """Return what Sec-WebSocket-Accept must say to a Sec-WebSocket-Key.

    >>> accept_key("dGhlIHNhbXBsZSBub25jZQ==")  # RFC 6455 section 1.3
    's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    """
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one whole unmasked frame, as a server sends it."""
    if len(payload) < 126:
        return bytes([0x80 | opcode, len(payload)]) + payload
    if len(payload) < 1 << 16:
        return struct.pack(">BBH", 0x80 | opcode, 126, len(payload)) + payload
    return struct.pack(">BBQ", 0x80 | opcode, 127, len(payload)) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return opcode and payload of the next frame of a client.  Raises: PeerError, asyncio.IncompleteReadError."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
    if length > _MAX_FRAME_BYTES:
        raise PeerError(f"a frame of {length} bytes, at most {_MAX_FRAME_BYTES} are taken")
    if not second & 0x80:
        raise PeerError("a frame of a client that is not masked")  # RFC 6455 section 5.1
    mask = await reader.readexactly(4)
    masked = await reader.readexactly(length)
    repeated = (mask * (length // 4 + 1))[:length]
    return first & 0x0F, (int.from_bytes(masked) ^ int.from_bytes(repeated)).to_bytes(length)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes until the client closes.  Raises: PeerError."""
    while True:
        opcode, payload = await read_frame(reader)
        writer.write(frame(PONG if opcode == PING else opcode, payload))
        await writer.drain()
        if opcode == CLOSE:
            return
