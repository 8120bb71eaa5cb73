"""A device gone wild: so many associations a second from one address, each held for a while and left without a word.

    python -m tests.system.flood PORT SOURCE RATE SECONDS HOLD_S

A process of its own, so that it does not share an interpreter with who measures.  Prints one line of JSON: what came.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter

from equipoise.proto.dicom.association import encode_request
from equipoise.proto.dicom.pdu import PduType
from tests.system.rawpeer import CONTEXTS

_PATIENCE_S = 30.0
_ANSWERS = {PduType.ASSOCIATE_AC: "accepted", PduType.ASSOCIATE_RJ: "rejected"}


def start(port: int, source: str, rate: float, seconds: float, hold_s: float) -> "subprocess.Popen[str]":
    """Begin; `outcome` waits for the end."""
    words = map(str, (port, source, rate, seconds, hold_s))
    return subprocess.Popen([sys.executable, "-m", __spec__.name, *words], stdout=subprocess.PIPE, text=True)


def outcome(flood: "subprocess.Popen[str]") -> dict[str, int]:
    """Return how often what came of an association: accepted, rejected, nothing; and `most`, open at once."""
    said, _ = flood.communicate(timeout=300)
    assert flood.returncode == 0
    found: dict[str, int] = json.loads(said)
    return found


class _Flood:
    def __init__(self, port: int, source: str, hold_s: float) -> None:
        self._port, self._source, self._hold_s = port, source, hold_s
        self._open = self.most = 0
        self.came: Counter[str] = Counter()

    async def call(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(self._source, 0))
        writer.write(encode_request("PACS", f"WILD{number % 8}", CONTEXTS))
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await reader.readexactly(6)
        except (OSError, asyncio.IncompleteReadError):
            answer = b""
        kind = _ANSWERS.get(PduType(answer[0]), "nothing") if answer else "nothing"
        self.came[kind] += 1
        if kind == "accepted":
            self._open += 1
            self.most = max(self.most, self._open)
            await asyncio.sleep(self._hold_s * (0.5 + number % 16 / 16))  # not all places are given back at once
            self._open -= 1
        writer.close()

    async def run(self, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.TaskGroup() as calls:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(began_s + number / rate - loop.time())
                calls.create_task(self.call(number))


def main() -> None:
    port, source, rate, seconds, hold_s = sys.argv[1:]
    flood = _Flood(int(port), source, float(hold_s))
    asyncio.run(flood.run(float(rate), float(seconds)))
    sys.stdout.write(json.dumps({**flood.came, "most": flood.most}) + "\n")


if __name__ == "__main__":
    main()
