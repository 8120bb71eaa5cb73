"""Made-up HL7 messages of the common types: seeded, each with a control ID of its own, of any size.

Patients are numbered (`SIM^PATIENT-0042`), so nobody can take them for real ones; times begin in 2031.  Leaves out what
receivers answer (`hl7_answers.py`), and most optional fields.
Source: HL7 version 2.5.1, chapters 2.15 (MSH, FHS, BHS), 3 (ADT), 4 (orders), 5 (queries), 6 (DFT, BAR), 7 (ORU), 8
(MFN), 9 (MDM), 10 (SIU); structures of messages, table 0354.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from random import Random

VERSIONS = ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8")
BATCH = "batch"
_FIRST = datetime(2031, 3, 4, 5, 6, 7)
_OBX_BYTES = 1024
_LEAST_OBX_BYTES = 32
_CHUNK_BYTES = 64 * 1024
_TEXT = b"SIMULATED REPORT, NO FINDING.  "
_MOST_BYTES = 1 << 30


class Mode(Enum):
    """Which answers a message asks for: MSH-15 (accept) and MSH-16 (application), table 0155."""

    ORIGINAL = ("", "")
    COMMIT = ("AL", "NE")
    BOTH = ("AL", "AL")
    NONE = ("NE", "NE")


@dataclass(frozen=True, slots=True)
class Type:
    """A type of message.

    Attributes:
        structure: MSH-9.3, from version 2.3.1 on.
        segments: What follows MSH.
        since: The first version that has it.
        weight: How often it comes in a mix.
    """

    structure: str
    segments: tuple[str, ...]
    since: str = "2.1"
    weight: int = 1

    @property
    def patients(self) -> int:
        """How many patients it is about."""
        text = "".join(self.segments)
        return ("{patient}" in text) + ("{merged}" in text)


_EVN = "EVN|{event}|{at}"
_PID = "PID|1||{patient}||{name}||{born}|{sex}"
_PV1 = "PV1|1|I|{ward}^{room}^1|||||||MED|||||||||{visit}"
_MRG = "MRG|{merged}"
_ORC = "ORC|NW|{order}|||||||{at}"
_OBR = "OBR|1|{order}||CT^CT CHEST^SIM|||{at}"
_OBX = "OBX|1|TX|SIM^REPORT||SIMULATED, NO FINDING||||||F"

TYPES: dict[str, Type] = {
    "ADT^A01": Type("ADT_A01", (_EVN, _PID, _PV1), weight=4),
    "ADT^A02": Type("ADT_A02", (_EVN, _PID, "PV1|1|I|{ward}^{room}^1|||EMERGENCY^1^1"), weight=2),
    "ADT^A03": Type("ADT_A03", (_EVN, _PID, _PV1), weight=3),
    "ADT^A04": Type("ADT_A01", (_EVN, _PID, "PV1|1|O|CLINIC^1^1"), weight=4),
    "ADT^A08": Type("ADT_A01", (_EVN, _PID, _PV1), weight=8),
    "ADT^A11": Type("ADT_A09", (_EVN, _PID, _PV1)),
    "ADT^A28": Type("ADT_A05", (_EVN, _PID, "PV1|1|N"), since="2.3"),
    "ADT^A31": Type("ADT_A05", (_EVN, _PID, "PV1|1|N"), since="2.3", weight=4),
    "ADT^A34": Type("ADT_A30", (_EVN, _PID, _MRG), since="2.2"),
    "ADT^A40": Type("ADT_A39", (_EVN, _PID, _MRG, "PV1|1|N"), since="2.3"),
    "ORM^O01": Type("ORM_O01", (_PID, _PV1, _ORC, _OBR), weight=6),
    "OMI^O23": Type("OMI_O23", (_PID, _PV1, _ORC, _OBR, "IPC|{order}|{order}|2.25.{number}|{order}|CT"), since="2.5"),
    "ORU^R01": Type("ORU_R01", (_PID, "OBR|1|||CT^^SIM", _OBX), weight=6),
    "SIU^S12": Type(
        "SIU_S12",
        (
            "SCH|{order}|||||ROUTINE|NORMAL|||||||||SIM^PLANNER||||SIM^PLANNER",
            _PID,
            _PV1,
            "RGS|1",
            "AIS|1||CT^^SIM|{at}",
        ),
        since="2.3",
    ),
    "MDM^T02": Type("MDM_T02", (_EVN, _PID, _PV1, "TXA|1|RP|TX|{at}||||||||{order}|||||AU", _OBX), since="2.3"),
    "DFT^P03": Type("DFT_P03", (_EVN, _PID, _PV1, "FT1|1|||{at}||CG|CT^^SIM")),
    "QBP^Q22": Type("QBP_Q21", ("QPD|Q22^Find Candidates^HL7|{order}|@PID.3.1^SIM0001", "RCP|I|10^RD"), since="2.4"),
    "BAR^P01": Type("BAR_P01", (_EVN, _PID, "PV1|1|O|CLINIC^1^1")),
    "MFN^M02": Type("MFN_M02", ("MFI|STF||UPD|||AL", "MFE|MUP|{order}|{at}|SIM{number}|CE", "STF|SIM{number}"), "2.2"),
}


@dataclass(frozen=True, slots=True)
class Made:
    """One message.

    Attributes:
        patients: As `proto.hl7.read_patients` gives them, `id^authority`, those of MRG at the end.
        answers: MSH-15 and MSH-16.
        head: Its segments, but for OBX segments of `filler_bytes` in all, which are made when they are asked for.
    """

    control_id: bytes
    kind: str
    patients: tuple[bytes, ...]
    answers: Mode
    head: bytes
    filler_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """How long it is, without the bytes of its frame."""
        return len(self.head) + self.filler_bytes

    def chunks(self) -> Iterator[bytes]:
        """Give its content, in pieces of about 64 KiB."""
        piece = bytearray(self.head)
        for obx in _filler(self.filler_bytes):
            piece += obx
            if len(piece) >= _CHUNK_BYTES:
                yield bytes(piece)
                piece.clear()
        if piece:
            yield bytes(piece)

    @property
    def content(self) -> bytes:
        """The whole of it."""
        return b"".join(self.chunks())


class Messages:
    """Makes the messages of one sender; the same arguments give the same messages.

    Args:
        name: The sender's: MSH-3, and what its control IDs begin with, so that those of two senders differ.
        seed: Of what is made up.
        version: MSH-12, one of VERSIONS.
        mode: What is asked for in MSH-15 and MSH-16, which version 2.1 does not have.
        patients: Numbers of the patients that it knows.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        *,
        version: str = "2.5.1",
        mode: Mode = Mode.ORIGINAL,
        patients: Sequence[int] = range(1, 101),
    ) -> None:
        if version not in VERSIONS:
            raise ValueError(f"version {version!r} is not one of {', '.join(VERSIONS)}")
        if version == "2.1" and mode is not Mode.ORIGINAL:
            raise ValueError("version 2.1 has no MSH-15 and MSH-16; use Mode.ORIGINAL")
        self._name = name
        self._version = version
        self._mode = mode
        self._patients = patients
        self._rng = Random(f"{seed} {name}")  # noqa: S311 messages are invented, not secret
        self._made = 0
        self.kinds = tuple(kind for kind, of in TYPES.items() if VERSIONS.index(of.since) <= VERSIONS.index(version))

    def any(self) -> Made:
        """Make a message of some type, those that hospitals send most the most often."""
        (kind,) = self._rng.choices(self.kinds, [TYPES[kind].weight for kind in self.kinds])
        return self.make(kind)

    def make(self, kind: str, size_bytes: int | None = None, patients: Sequence[int] | None = None) -> Made:
        """Make a message of a type, `ADT^A01`.

        Args:
            kind: One of `kinds`.
            size_bytes: Of ORU^R01 alone: exactly how long, from about 200 bytes to 1 GiB.
            patients: Numbers of the patients it is about, the merged one last; chosen where not given.
        """
        if kind not in self.kinds:
            raise ValueError(f"version {self._version} has no {kind!r} here; there are {', '.join(self.kinds)}")
        of = TYPES[kind]
        chosen = self._choose(of.patients) if patients is None else list(patients)
        control_id, facts = self._facts(kind, chosen)
        segments = [self._msh(kind, of, control_id, facts["at"]), *(text.format(**facts) for text in of.segments)]
        keys = tuple(f"{_identifier(number)}^SIM".encode() for number in chosen[: of.patients])
        if size_bytes is None:
            return Made(control_id, kind, keys, self._mode, _joined(segments))
        return self._sized(Made(control_id, kind, keys, self._mode, _joined(segments[:-1])), size_bytes)

    def batch(self, messages: Sequence[Made]) -> Made:
        """Put messages into one file of one batch, which is sent in one frame."""
        control_id, facts = self._facts("", [])
        about = f"|^~\\&|{self._name}|SIM|RECEIVER|SIM|{facts['at']}||||{control_id.decode()}"
        parts = [f"FHS{about}\rBHS{about}B\r".encode(), *(message.content for message in messages)]
        parts.append(f"BTS|{len(messages)}\rFTS|1\r".encode())
        return Made(control_id, BATCH, (), self._mode, b"".join(parts))

    def _choose(self, count: int) -> list[int]:
        return self._rng.sample(self._patients, count)

    def _facts(self, kind: str, patients: list[int]) -> tuple[bytes, dict[str, str]]:
        """Return a control ID, and what the fields of the message hold."""
        self._made += 1
        number = patients[0] if patients else self._rng.randrange(1, 1000)
        merged = patients[1] if len(patients) > 1 else number
        at = (_FIRST + timedelta(seconds=self._made)).strftime("%Y%m%d%H%M%S")
        facts = {
            "event": kind.partition("^")[2],
            "at": at,
            "patient": f"{_identifier(number)}^^^SIM",
            "merged": f"{_identifier(merged)}^^^SIM",
            "name": f"SIM^PATIENT-{number:04d}",
            "born": f"{1930 + number % 90}0{1 + number % 9}{10 + number % 18}",
            "sex": "FMOU"[number % 4],
            "ward": f"WARD{number % 7}",
            "room": str(100 + number % 40),
            "visit": f"V{number:06d}",
            "order": f"{self._name}{self._made}",
            "number": str(number),
        }
        return f"{self._name}-{self._made:07d}".encode(), facts

    def _msh(self, kind: str, of: Type, control_id: bytes, at: str) -> str:
        has_structure = VERSIONS.index(self._version) >= VERSIONS.index("2.3.1")
        name = f"{kind}^{of.structure}" if has_structure else kind
        text = rf"MSH|^~\&|{self._name}|SIM|RECEIVER|SIM|{at}||{name}|{control_id.decode()}|P|{self._version}"
        return text if self._mode is Mode.ORIGINAL else f"{text}|||{'|'.join(self._mode.value)}"

    def _sized(self, made: Made, size_bytes: int) -> Made:
        filler = size_bytes - len(made.head)
        if made.kind != "ORU^R01" or not _LEAST_OBX_BYTES <= filler <= _MOST_BYTES:
            least = len(made.head) + _LEAST_OBX_BYTES
            raise ValueError(f"{made.kind} of {size_bytes} bytes: a size is for ORU^R01, from {least} to {_MOST_BYTES}")
        return Made(made.control_id, made.kind, made.patients, made.answers, made.head, filler)


def digest(chunks: Iterator[bytes] | Sequence[bytes]) -> str:
    """Return what two equal messages have in common, and no two others."""
    state = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()


def _identifier(number: int) -> str:
    return f"SIM{number:04d}"


def _joined(segments: Sequence[str]) -> bytes:
    return "".join(f"{segment}\r" for segment in segments).encode("ascii")


def _filler(size_bytes: int) -> Iterator[bytes]:
    """Give OBX segments of so many bytes in all; the last one takes what is left over."""
    count = max(1, size_bytes // _OBX_BYTES) if size_bytes else 0
    for number in range(count):
        is_last = number == count - 1
        length = size_bytes - _OBX_BYTES * (count - 1) if is_last else _OBX_BYTES
        begin = b"OBX|%d|TX|SIM||" % (number + 1)
        text = (_TEXT * (length // len(_TEXT) + 1))[: length - len(begin) - 1]
        yield begin + text + b"\r"
