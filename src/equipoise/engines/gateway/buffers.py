"""Read buffers for all connections of a gateway, lent one read at a time.

A transport may keep a reference to what it was given to write, so a buffer must not be read into again before it has
surely left.  Nearly always it has left when `write` returns: then the next read, of whatever connection, uses the
same memory, which is still in the processor's cache, and idle connections hold none.  Otherwise the connection
keeps the buffer (`keep`) and gives it back when the kernel has taken the rest (`give_back`).
"""

BUFFER_BYTES = 512 * 1024  # see docs/adr/0002; 16 KiB is what limits a stock HAProxy
_MAX_SPARE = 16


class BufferPool:
    """All read buffers of one process."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer_bytes = buffer_bytes
        self._current = memoryview(bytearray(buffer_bytes))
        self._spare: list[memoryview] = []
        self.kept = 0  # buffers that wait for a slow peer

    def lend(self) -> memoryview:
        """Return the buffer for the next read; valid until the read has been handled."""
        return self._current

    def keep(self) -> memoryview:
        """Return the buffer that was lent, now the caller's until it gives it back."""
        kept = self._current
        self._current = self._spare.pop() if self._spare else memoryview(bytearray(self._buffer_bytes))
        self.kept += 1
        return kept

    def give_back(self, buffer: memoryview) -> None:
        """Take a kept buffer back; nothing refers to it any more."""
        self.kept -= 1
        if len(self._spare) < _MAX_SPARE:
            self._spare.append(buffer)

    def forget(self, count: int) -> None:
        """Count kept buffers out whose connection is gone; a transport may still hold them, so they are not reused."""
        self.kept -= count
