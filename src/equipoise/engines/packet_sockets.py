"""Packet sockets that hear only what a filter lets through: a balancer's link carries a million other packets a second.

Needs CAP_NET_RAW.  Leaves out what is in the frames.
Source: packet(7); socket(7), SO_ATTACH_FILTER; linux/filter.h (sock_filter, sock_fprog); linux/bpf_common.h (codes).
"""

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import TypeAlias

LOAD_BYTE, LOAD_WORD = 0x30, 0x20  # BPF_LD|BPF_ABS with BPF_B, BPF_W: what stands so many bytes from the beginning
EQUAL, RETURN = 0x15, 0x06  # BPF_JMP|BPF_JEQ, BPF_RET
MOST_FRAME_BYTES = 2048
_LINE = struct.Struct("=HBBI")
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h: not in Python's socket module

Line: TypeAlias = tuple[int, int, int, int]
"""Code; how many lines to step over where it is so, and where not; value."""


def packet_socket(interface: str, protocol: int, program: Sequence[Line]) -> socket.socket:
    """Return a socket for frames of one EtherType on an interface, of which it hears what `program` lets through.

    Raises: OSError.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # of no protocol: deaf until it has its filter
    try:
        code = ctypes.create_string_buffer(b"".join(_LINE.pack(*line) for line in program))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
        sock.bind((interface, protocol))
    except OSError:
        sock.close()
        raise
    return sock
