"""Judge the files that a site names for TLS: facts in, findings out.  Pure.

Leaves out whether peers trust them: `equipoise probe` and a modality's log say that.
"""

from collections.abc import Iterator
from dataclasses import replace

from equipoise.app.doctor.facts import PemFile
from equipoise.app.doctor.findings import Finding, fine, problem, warning
from equipoise.base.certificates import Certificate
from equipoise.base.clock import rfc3339
from equipoise.base.units import format_days
from equipoise.state.events import EXPIRING_DAYS

_SOON_S = EXPIRING_DAYS * 86400
_OTHERS, _GROUP = 0o007, 0o070
_SHOWN_NAMES = 3
_SYSTEM_LIST = 20  # so many authorities in a file are a system's, whose roots come and go without anybody's doing


def judge_certificates(files: tuple[PemFile, ...], now_s: float) -> Iterator[Finding]:
    """Yield what is to be said of each file; `now_s` is the wall clock."""
    for file in files:
        if file.unusable:
            seen, _, do = file.unusable.partition("; ")
            yield problem(_item(file), seen, do or f"correct the file, or {file.where}")
            continue
        if file.private:
            yield from _secrecy(file)
        yield from _authorities(file, now_s) if file.holds == "authorities" else _validity(file, now_s)


def _item(file: PemFile) -> str:
    return {"key": "key", "authorities": "authorities"}.get(file.holds, "certificate")


def _secrecy(file: PemFile) -> Iterator[Finding]:
    seen = f"{file.path} holds a private key and has mode {file.mode:04o}"
    if file.mode & _OTHERS:
        yield problem("key", f"{seen}: everybody here may open it", f"`chmod o= {file.path}`, and replace the key")
    elif file.mode & _GROUP and file.owner != 0:  # root:GROUP is how Debian lets a service read keys it does not own
        yield warning("key", f"{seen}: its group may open it", f"`chmod g= {file.path}`; the balancer's user is enough")
    elif file.holds == "key":
        yield fine("key", f"{file.path}, for nobody else to read")


def _authorities(file: PemFile, now_s: float) -> Iterator[Finding]:
    """Yield what is to be said of whom we trust: an old one may stand beside its successor."""
    valid = [each for each in file.certificates if each.not_before_s <= now_s < each.not_after_s]
    if not valid:
        seen = f"{file.path}: none of {len(file.certificates)} is valid, such as {_names(file.certificates[0])}"
        yield problem("authorities", seen, "put the authority's present certificate there: every peer is refused")
    elif len(valid) >= _SYSTEM_LIST:
        yield fine("authorities", f"{file.path}: {len(valid)} are valid")
    else:
        yield from _validity(replace(file, certificates=tuple(valid)), now_s)


def _validity(file: PemFile, now_s: float) -> Iterator[Finding]:
    if not file.certificates:
        return
    troubled = [each for each in file.certificates if not each.not_before_s <= now_s < each.not_after_s - _SOON_S]
    for certificate in troubled:
        yield _troubled(file, certificate, now_s)
    if not troubled:
        first = min(file.certificates, key=lambda each: each.not_after_s)
        yield fine(_item(file), f"{file.path}: {_names(first)}, until {_day(first.not_after_s)}")


def _troubled(file: PemFile, certificate: Certificate, now_s: float) -> Finding:
    said = f"{file.path}: {_names(certificate)}"
    if now_s < certificate.not_before_s:
        do = "look at the clock, or wait; peers refuse it until then"
        return problem(_item(file), f"{said} is valid only from {_day(certificate.not_before_s)}", do)
    if now_s < certificate.not_after_s:
        left = format_days(certificate.not_after_s - now_s)
        do = "put a new one there in time; it is taken without a restart"
        return warning(_item(file), f"{said} expires in {left}, {_day(certificate.not_after_s)}", do)
    seen = f"{said} expired {_day(certificate.not_after_s)}"
    return problem(_item(file), seen, "put a new one there: peers refuse this one")


def _names(certificate: Certificate) -> str:
    shown = certificate.names[:_SHOWN_NAMES]
    more = len(certificate.names) - len(shown)
    return f"{', '.join(shown) or certificate.subject}{f' and {more} more' if more else ''}"


def _day(wall_s: float) -> str:
    return rfc3339(wall_s)[:10]
