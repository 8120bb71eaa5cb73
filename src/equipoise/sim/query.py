"""Answer a query from the headers of stored objects: matching and the four levels.  Leaves out sequence matching.

Source: DICOM PS3.4, C.2.2.2 (matching) and C.3.4 (levels and their unique keys).
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.dataset import Dataset

UNIQUE_KEYS = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_RANGES = frozenset({"DA", "TM", "DT"})
_NOT_KEYS = frozenset({"QueryRetrieveLevel", "SpecificCharacterSet", "TimezoneOffsetFromUTC", "RetrieveAETitle"})


def _distinct(headers: list[Any], keyword: str) -> list[str]:
    return sorted({str(header.get(keyword, "")) for header in headers} - {""})


# PS3.4 tables C.3-1 to C.3-3: what an archive works out over all objects of a match.
_COMPUTED: dict[str, Callable[[list[Any]], Any]] = {
    "ModalitiesInStudy": lambda headers: _distinct(headers, "Modality"),
    "SOPClassesInStudy": lambda headers: _distinct(headers, "SOPClassUID"),
    "NumberOfPatientRelatedStudies": lambda headers: str(len(_distinct(headers, "StudyInstanceUID"))),
    "NumberOfPatientRelatedInstances": lambda headers: str(len(headers)),
    "NumberOfStudyRelatedSeries": lambda headers: str(len(_distinct(headers, "SeriesInstanceUID"))),
    "NumberOfStudyRelatedInstances": lambda headers: str(len(headers)),
    "NumberOfSeriesRelatedInstances": lambda headers: str(len(headers)),
}


def find(headers: Iterable[Any], identifier: Any, retrieve_ae: str) -> list[Any]:
    """Return one response identifier for each match.  Raises: ValueError where the level is not one of the four."""
    level = str(identifier.get("QueryRetrieveLevel", ""))
    if level not in UNIQUE_KEYS:
        raise ValueError(f"query/retrieve level {level!r} is not one of {', '.join(UNIQUE_KEYS)}")
    groups: dict[str, list[Any]] = {}
    for header in headers:
        groups.setdefault(str(header.get(UNIQUE_KEYS[level], "")), []).append(header)
    found = [group for group in groups.values() if all(_key_matches(group, key) for key in identifier)]
    return [_response(group, identifier, level, retrieve_ae) for group in found]


def selected(header: Any, identifier: Any) -> bool:
    """Say whether a retrieve request names this object, by the unique keys that it gives."""
    return all(
        _values_match(_texts(identifier.get(key)), _texts(header.get(key)), "UI") for key in UNIQUE_KEYS.values()
    )


def wanted_uids(identifier: Any, keyword: str) -> list[str]:
    """Return the values of a unique key, none where the request leaves it open."""
    return _texts(identifier.get(keyword))


def _response(group: list[Any], identifier: Any, level: str, retrieve_ae: str) -> Any:
    response = Dataset()
    for key in identifier:
        if key.keyword in _COMPUTED:
            setattr(response, key.keyword, _COMPUTED[key.keyword](group))
        elif key.tag in group[0]:
            response.add(group[0][key.tag])
        elif key.keyword not in _NOT_KEYS:
            response.add_new(key.tag, key.VR, None)
    if "SpecificCharacterSet" in group[0]:
        response.SpecificCharacterSet = group[0].SpecificCharacterSet
    response.QueryRetrieveLevel = level
    response.RetrieveAETitle = retrieve_ae
    return response


def _key_matches(group: list[Any], key: Any) -> bool:
    if key.keyword in _NOT_KEYS or key.VR == "SQ" or key.tag.element == 0:
        return True
    wanted = _texts(key.value)
    if key.keyword in _COMPUTED:
        return _values_match(wanted, _texts(_COMPUTED[key.keyword](group)), key.VR)
    return _values_match(wanted, _texts(group[0].get(key.tag)), key.VR)


def _values_match(wanted: list[str], held: list[str], vr: str) -> bool:
    if not wanted:
        return True  # universal matching
    return any(_value_matches(text, value, vr) for text in wanted for value in held or [""])


def _value_matches(wanted: str, held: str, vr: str) -> bool:
    if vr == "UI":
        return wanted == held
    if vr in _RANGES and "-" in wanted:
        low, _, high = wanted.partition("-")
        return bool(held) and low <= held and (not high or held[: len(high)] <= high)
    pattern = "".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in wanted)
    return re.fullmatch(pattern, held, re.IGNORECASE if vr == "PN" else 0) is not None


def _texts(value: Any) -> list[str]:
    value = getattr(value, "value", value)
    if value is None:
        return []
    many = value if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue" else [value]
    return [text for text in (str(one).strip(" \0") for one in many) if text]
