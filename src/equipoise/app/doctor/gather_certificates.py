"""Read the files that a site names for TLS, and try them as a gateway would.  Connects to nobody."""

from collections.abc import Iterator
from pathlib import Path

from equipoise.app.doctor.facts import PemFile
from equipoise.base.certificates import CertificateFileError, read_certificates, read_pem
from equipoise.base.errors import EquipoiseError
from equipoise.base.tls import client_context, server_context
from equipoise.plan.model import NodeTls, Plan, Tls

_HOLDS = {"cert": "certificate", "key": "key", "client_ca": "authorities", "ca": "authorities"}


def gather_certificates(plan: Plan) -> tuple[PemFile, ...]:
    """Return every file that the plan names for TLS, once; the first service that names it stands for all."""
    found: dict[tuple[str, str, str], PemFile] = {}
    for service in plan.services:
        for part, tls in (("tls", service.tls), ("node_tls", service.node_tls)):
            if tls is not None:
                for file in _files(f"services.{service.name}.{part}", tls):
                    found.setdefault((file.path, file.holds, file.unusable), file)
    return tuple(found.values())


def _files(where: str, tls: Tls | NodeTls) -> Iterator[PemFile]:
    trouble = _trouble(tls)
    for setting, path in _settings(tls).items():
        if path is None:
            continue
        said = str(trouble) if trouble is not None and trouble.setting == setting else ""
        yield _file(path, f"{where}.{setting}", _HOLDS[setting], said)


def _settings(tls: Tls | NodeTls) -> dict[str, str | None]:
    own = {"cert": tls.cert, "key": tls.key}
    return {**own, "client_ca": tls.client_ca} if isinstance(tls, Tls) else {**own, "ca": tls.ca}


def _trouble(tls: Tls | NodeTls) -> CertificateFileError | None:
    """Return what keeps a gateway from using these files together."""
    try:
        if isinstance(tls, Tls):
            server_context(cert=tls.cert, key=tls.key, client_ca=tls.client_ca, min_version=tls.min_version)
        else:
            client_context(ca=tls.ca, verify=tls.verify, cert=tls.cert, key=tls.key, min_version=tls.min_version)
    except CertificateFileError as error:
        return error
    return None


def _file(path: str, where: str, holds: str, unusable: str) -> PemFile:
    if unusable:
        return PemFile(path, where, holds, unusable)
    try:
        private = b"PRIVATE KEY-----" in read_pem(path, holds)
        certificates = read_certificates(path) if holds != "key" else ()
        status = Path(path).stat()
    except (EquipoiseError, OSError) as error:
        return PemFile(path, where, holds, str(error))
    return PemFile(path, where, holds, "", certificates, private, status.st_mode & 0o777, status.st_uid)
