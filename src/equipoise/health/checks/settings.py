"""What the settings of several checks are made of: paths, hosts and status codes of HTTP; UIDs and XDS identifiers.

Leaves out settings that one check has for itself.
Source: RFC 9110 (status codes), RFC 3986 section 3.3 (paths); DICOM PS3.5 section 9.1 (UIDs); IHE ITI TF-3, section
4.2.3 (patientId and uniqueId; data types CX and OID), after HL7 v2.5 section 2.A.14.
"""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

_STATUS = re.compile(r"([1-5]\d\d)(?:-([1-5]\d\d))?\Z")
_MAX_UID_CHARACTERS = 64
_UID = re.compile(r"[0-2](?:\.(?:0|[1-9]\d*))+", re.ASCII)
_PATIENT_ID = re.compile(r"[^\s^~&|\\<>]{1,128}\^\^\^&([^&]*)&ISO")
_DOCUMENT_ID = re.compile(r"[!-~]{1,128}")


def _status(text: str) -> str:
    match = _STATUS.match(text)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{text!r} is not a status; write one such as 200, or a range such as 200-299")
    return text


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text):
        raise ValueError(f"{text!r} is not a path; it starts with / and has no spaces, such as /health?deep=1")
    return text


def _base_path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text) or "?" in text or "#" in text:
        raise ValueError(f"{text!r} is not the path of a service; it starts with /, without spaces, ? and #")
    return text.rstrip("/") or "/"


def _host(text: str) -> str:
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError(f"{text!r} is not a host; write for example viewer.example or viewer.example:8080")
    return text


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | int) else value


def _uid(text: str) -> str:
    if len(text) > _MAX_UID_CHARACTERS:
        raise ValueError(f"{text!r} has {len(text)} characters, a UID has at most {_MAX_UID_CHARACTERS}")
    if not _UID.fullmatch(text):
        raise ValueError(
            f"{text!r} is not a UID: numbers with dots between them, 0, 1 or 2 first, none with a zero in front, "
            "such as 1.2.840.10008.1.1"
        )
    return text


def _patient_id(text: str) -> str:
    match = _PATIENT_ID.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a patient ID with its authority; write ID^^^&OID&ISO")
    _uid(match[1])
    return text


def _document_id(text: str) -> str:
    if not _DOCUMENT_ID.fullmatch(text):
        raise ValueError(f"{text!r} is not a document's unique ID: 1 to 128 characters without spaces, mostly an OID")
    return text


UrlPath = Annotated[str, AfterValidator(_path)]
BasePath = Annotated[str, AfterValidator(_base_path)]
HostHeader = Annotated[str, AfterValidator(_host)]

StatusRange = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if isinstance(value, int) else value),
    AfterValidator(_status),
    WithJsonSchema({"type": ["string", "integer"], "pattern": r"^[1-5]\d\d(-[1-5]\d\d)?$", "title": "status"}),
]

Statuses = Annotated[
    tuple[StatusRange, ...],
    Field(min_length=1, max_length=16),
    BeforeValidator(_listed, json_schema_input_type=StatusRange | list[StatusRange]),
]

Uid = Annotated[str, AfterValidator(_uid)]
PatientId = Annotated[str, AfterValidator(_patient_id)]
DocumentId = Annotated[str, AfterValidator(_document_id)]
