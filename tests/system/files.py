"""The real files that pydicom ships for its own tests, and what "the same object" means.

Two objects are the same when their transfer syntax and every element agree: tag, value representation, value, and so
the bytes of each pixel.  Not compared, since every sender may write it anew: group lengths (PS3.5 section 7.2),
trailing padding (PS3.10 section 7.2), and lengths of sequences.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError

EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
# storescu's option for each transfer syntax; PS3.6 table A-1 names them.
STORESCU_OPTION = {
    EXPLICIT: "-xe",
    IMPLICIT: "-xi",
    BIG_ENDIAN: "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
# Made to be broken: no sender of ours can read them to their end.
_BROKEN = {
    "MR_truncated.dcm": "pixel data cut short",
    "rtplan_truncated.dcm": "cut within an element",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "no end of its pixel sequence",
    "SC_rgb_jpeg.dcm": "an element without a value representation",
}
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR: nothing that is stored over the network
_TRAILING_PADDING = 0xFFFCFFFC
_PIXEL_DATA = 0x7FE00010


@dataclass(frozen=True, slots=True)
class Element:
    """One element, at its place in the data set; a long value is its hash."""

    place: str
    vr: str
    value: str


@dataclass(frozen=True, slots=True)
class Content:
    """What must arrive."""

    transfer_syntax: str
    elements: tuple[Element, ...]

    @property
    def sop_instance_uid(self) -> str:
        """The object's own name."""
        return next(element.value for element in self.elements if element.place == "(0008,0018)")


@dataclass(frozen=True, slots=True)
class RealFile:
    """A file that can be stored."""

    path: Path
    transfer_syntax: str
    sop_class: str
    sop_instance_uid: str
    modality: str
    patient: tuple[str, str]  # name and id


@cache
def real_files() -> tuple[RealFile, ...]:
    """Return every file of the installed `pydicom` and `pydicom-data` that is a whole object."""
    folders = [Path(str(files("pydicom"))) / "data/test_files", Path(str(files("data_store")))]
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    found = (_real_file(path) for path in paths if path.name not in _BROKEN)
    return tuple(file for file in found if file is not None)


def named(*names: str) -> list[RealFile]:
    """Return some of the files by their names."""
    by_name = {file.path.name: file for file in real_files()}
    return [by_name[name] for name in names]


@cache
def content(path: Path) -> Content:
    """Return what a file holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # real files have values that the standard does not allow; they must pass too
        dataset = dcmread(path)
        return content_of(dataset, str(dataset.file_meta.TransferSyntaxUID))


def content_of(dataset: Any, transfer_syntax: str) -> Content:
    """Return what a data set holds."""
    elements: list[Element] = []
    _describe(dataset, "", elements)
    return Content(transfer_syntax, tuple(elements))


def contents(paths: Iterable[Path]) -> Counter[Content]:
    """Return what files hold, in no order; the same object may be there several times."""
    return Counter(content(path) for path in paths)


def stored(folder: Path) -> Counter[Content]:
    """Return what a receiver has written."""
    return contents(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def assert_same(arrived: Counter[Content], sent: Counter[Content]) -> None:
    """Compare, and say what differs by object and element."""
    missing, strange = sent - arrived, arrived - sent
    if not missing and not strange:
        return
    lines = [f"{sum(missing.values())} objects of {sum(sent.values())} did not arrive as they were"]
    for object_ in list(missing)[:5]:
        lines.append(f"{object_.sop_instance_uid} in {object_.transfer_syntax}")
        for other in (one for one in strange if one.sop_instance_uid == object_.sop_instance_uid):
            lines.append(f"  arrived in {other.transfer_syntax}")
            lines += [f"  - {element}" for element in sorted(set(object_.elements) - set(other.elements), key=str)[:5]]
            lines += [f"  + {element}" for element in sorted(set(other.elements) - set(object_.elements), key=str)[:5]]
    raise AssertionError("\n".join(lines))


def _real_file(path: Path) -> RealFile | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = dcmread(path, stop_before_pixels=True)
            syntax = str(header.file_meta.get("TransferSyntaxUID", ""))
        except (InvalidDicomError, AttributeError):
            return None
        sop_class, uid = str(header.get("SOPClassUID", "")), str(header.get("SOPInstanceUID", ""))
        if not (syntax and sop_class and uid) or sop_class == _MEDIA_DIRECTORY:
            return None
        patient = str(header.get("PatientName", "")), str(header.get("PatientID", ""))
        return RealFile(path, syntax, sop_class, uid, str(header.get("Modality", "")), patient)


def _describe(dataset: Any, prefix: str, into: list[Element]) -> None:
    for element in dataset:
        if element.tag.element == 0 or element.tag == _TRAILING_PADDING:
            continue
        place = f"{prefix}{element.tag}".replace(" ", "").upper()
        if element.VR == "SQ":
            into.append(Element(place, "SQ", str(len(element.value))))
            for number, item in enumerate(element.value):
                _describe(item, f"{place}[{number}]", into)
        else:
            into.append(Element(place, _vr(element), _value(element.value)))


def _vr(element: Any) -> str:
    """Return the representation; some of the files have OW for compressed pixels, which is OB (PS3.5 annex A.4)."""
    encapsulated = element.tag == _PIXEL_DATA and element.is_undefined_length
    return "OB" if encapsulated else str(element.VR)


def _value(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
