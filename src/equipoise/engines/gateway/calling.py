"""How the nodes of one service are called: from which address, behind which PROXY header, in which TLS.

Source: "The PROXY protocol", section 2 (the header comes before anything else); DICOM PS3.15 annex B.12.
"""

import asyncio
import errno
import os
import ssl

from equipoise.base.tls import start_tls
from equipoise.base.tls_problems import handshake_problem
from equipoise.config.fields import split_port
from equipoise.engines.gateway.arrival import Arrival
from equipoise.engines.gateway.messages import ServiceTask
from equipoise.engines.gateway.side import LINGER_S
from equipoise.plan.model import Node
from equipoise.proto.proxy_protocol import encode

# The relay's own timer is shorter; this one is for a node that a cancelled call has left behind.
_HANDSHAKE_S = 60.0
_OUR_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EACCES})

_CLOSED = frozenset({None, 0, errno.ECONNRESET, errno.EPIPE})


class CallError(Exception):
    """A node could not be called; `ours`: for a reason of this machine, which says nothing of the node."""

    def __init__(self, reason: str, *, ours: bool) -> None:
        super().__init__(reason)
        self.ours = ours


class Caller:
    """Calls nodes for one service.

    Args:
        task: The service.
        context: What TLS is agreed by; None where nodes are plain, or where no file of `node_tls` can be used: then
            nobody is called, least of all in the clear.
    """

    def __init__(self, task: ServiceTask, context: ssl.SSLContext | None) -> None:
        self._source = (task.source_address, 0) if task.source_address else None
        self._version = task.proxy_protocol.send
        self._server_name = task.node_tls.server_name if task.node_tls else None
        self._context = context
        self._is_plain = task.node_tls is None

    async def call(self, node: Node, arrival: Arrival, side: asyncio.BaseProtocol) -> None:
        """Connect `side` to the node.  Raises: CallError."""
        if self._context is None and not self._is_plain:
            raise CallError("the files of node_tls cannot be used; `equipoise check` says why", ours=True)
        host, port = node.host or "", node.port or arrival.port
        try:
            await self._connect(node, host, port, arrival, side)
        except OSError as error:
            raise CallError(f"{host} port {port}: {self._said(error)}", ours=error.errno in _OUR_OWN) from None

    async def _connect(self, node: Node, host: str, port: int, arrival: Arrival, side: asyncio.BaseProtocol) -> None:
        loop = asyncio.get_running_loop()
        if self._context is None:
            transport, _ = await loop.create_connection(lambda: side, host, port, local_addr=self._source)
            if self._version != "none":
                transport.write(self._header(arrival))
            return
        raw, _ = await loop.create_connection(asyncio.Protocol, host, port, local_addr=self._source)
        await self._secure(raw, self._context, node, arrival, side)

    async def _secure(
        self, raw: asyncio.Transport, context: ssl.SSLContext, node: Node, arrival: Arrival, side: asyncio.BaseProtocol
    ) -> None:
        if self._version != "none":
            raw.write(self._header(arrival))
        try:
            secured, _ = await start_tls(
                raw,
                side,
                context,
                server_side=False,
                server_hostname=(self._server_name or _name(node)).removesuffix("."),  # no certificate has the root
                handshake_timeout_s=_HANDSHAKE_S,
                shutdown_timeout_s=LINGER_S,
            )
        except BaseException:  # cancelled as well: nobody else would close it
            raw.abort()
            raise
        side.connection_made(secured)

    def _said(self, error: OSError) -> str:
        """Return what went wrong in words; who closes within a handshake often does so without an error number."""
        if self._context is not None and (isinstance(error, ssl.SSLError) or error.errno in _CLOSED):
            return handshake_problem(error, server=False)
        return os.strerror(error.errno) if error.errno else str(error)

    def _header(self, arrival: Arrival) -> bytes:
        return encode(self._version, arrival.client, arrival.server)


def _name(node: Node) -> str:
    """Return what the node's certificate is to be for: its address as configured, without the port."""
    return split_port(node.address)[0]
