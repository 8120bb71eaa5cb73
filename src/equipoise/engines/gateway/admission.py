"""Who may associate: decided from the A-ASSOCIATE-RQ and the source address alone.

Source: DICOM PS3.8 section 9.3.4 (rejects), section 9.3.2 (protocol version: test bit 0 alone; titles).
"""

import re
from functools import lru_cache

from equipoise.plan.model import Dicom
from equipoise.proto.dicom.association import AssociateRequest
from equipoise.proto.dicom.pdu import (
    REJECT_CALLED_AE,
    REJECT_CALLING_AE,
    REJECT_NO_REASON,
    REJECT_VERSION,
    Reject,
)


def refusal(request: AssociateRequest, settings: Dicom, source_refused: str | None) -> tuple[Reject, str] | None:
    """Return the reject that this request gets before any node is asked, and why; or None where it may go on."""
    if source_refused is not None:
        return REJECT_NO_REASON, source_refused
    if not request.protocol_version & 1:
        return REJECT_VERSION, f"protocol version 0x{request.protocol_version:04X} lacks bit 0, version 1"
    if not request.called_ae:
        return REJECT_CALLED_AE, "the called AE is empty; it has 1 to 16 characters that are not spaces"
    if not _allowed(request.called_ae, settings.called_ae_allow):
        return REJECT_CALLED_AE, f"called AE {request.called_ae!r} is not in dicom.called_ae_allow"
    if not request.calling_ae:
        return REJECT_CALLING_AE, "the calling AE is empty; it has 1 to 16 characters that are not spaces"
    if not _allowed(request.calling_ae, settings.calling_ae_allow):
        return REJECT_CALLING_AE, f"calling AE {request.calling_ae!r} is not in dicom.calling_ae_allow"
    return None


def _allowed(title: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or _matcher(patterns).fullmatch(title) is not None


@lru_cache(maxsize=256)
def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one expression for shell-style patterns, in which only * and ? are special."""
    return re.compile("|".join(re.escape(p).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns))
