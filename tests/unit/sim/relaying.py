"""What tests of the simulated site have in place of a balancer: connections go to the first port that takes them."""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress


def accept_all(listener: socket.socket, relay: Callable[[socket.socket, str], None]) -> None:
    """Give each client and its address to `relay`, until the listener is closed."""
    while True:
        try:
            client, (host, _) = listener.accept()
        except OSError:
            return
        relay(client, host)


def connect_through(client: socket.socket, ports: Iterable[int]) -> None:
    """Relay a client to the first of these ports that takes it; close it where none does."""
    for port in ports:
        with suppress(OSError):
            node = socket.create_connection(("127.0.0.1", port))
            for source, target in ((client, node), (node, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()
            return
    client.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
