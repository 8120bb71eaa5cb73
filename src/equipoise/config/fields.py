r"""The texts that configuration values are made of: AE titles, names, addresses, networks.

Each is checked where it is read, keeps the text that a person wrote as far as that is unambiguous, and says in its
error what is wrong and what to write instead.

Source: DICOM PS3.5 section 6.2 (value representation AE); RFC 1123 section 2.1 (host names); RFC 4291 section 2.2 and
RFC 3986 section 3.2.2 (IPv6 addresses, and their brackets where a port follows).
"""

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_MAX_CHARACTERS = 253
_AE_MAX_CHARACTERS = 16
_PORT_MAX = 65535

IpAddress = IPv4Address | IPv6Address


def _ae_title(text: str) -> str:
    title = text.strip(" ")  # spaces around it are not significant
    if not 1 <= len(title) <= _AE_MAX_CHARACTERS:
        raise ValueError(f"{text!r} has {len(title)} characters, an AE title has 1 to {_AE_MAX_CHARACTERS}")
    if bad := [c for c in title if c == "\\" or not " " <= c <= "~"]:
        repaired = "".join("_" if c in bad else c for c in title)
        raise ValueError(f"{text!r} contains {bad[0]!r}, not allowed in an AE title; try {repaired!r}")
    return title


def _name(text: str) -> str:
    if _NAME.match(text):
        return text
    repaired = re.sub(r"[^A-Za-z0-9._-]", "-", text).lstrip("._-")[:63]
    hint = f"; try {repaired!r}" if repaired else ""
    raise ValueError(
        f"{text!r} is not a name: 1 to 63 of letters A to Z, digits, '.', '_' and '-', a letter or digit first{hint}"
    )


def _cidr(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; write for example 10.1.0.0/16 or '2001:db8::/32'") from None
    raise ValueError(f"{text!r} has bits set outside its mask; write {str(wider)!r} for the whole network")


def split_port(text: str) -> tuple[str, int | None]:
    """Return host and port of `HOST`, `HOST:PORT`, an IPv6 address, or `[IPv6]:PORT`.  Raises: ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} opens a bracket; write '[2001:db8::1]:104' for an IPv6 address with a port")
        return host, _port(text, rest[1:]) if rest else None
    if text.count(":") != 1:  # none: a host alone; several: an IPv6 address alone
        return text, None
    host, _, digits = text.partition(":")
    return host, _port(text, digits)


def _port(text: str, digits: str) -> int:
    if digits.isascii() and digits.isdigit() and len(digits) <= 5 and 1 <= int(digits) <= _PORT_MAX:
        return int(digits)
    raise ValueError(f"{text!r} has the port {digits!r}; a port is a number from 1 to {_PORT_MAX}")


def numeric(host: str) -> IpAddress | None:
    """Return the IP address that `host` is, or None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _refuse_unusable(text: str, address: IpAddress) -> None:
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone ({address.scope_id}); use an address that is valid without one")
        if address.ipv4_mapped is not None:
            raise ValueError(f"{text!r} is an IPv4 address in IPv6 form; write {str(address.ipv4_mapped)!r}")
    if address.is_multicast or str(address) == "255.255.255.255":
        raise ValueError(f"{text!r} is for many receivers; use the address of one machine")


def _joined(host: str, port: int | None) -> str:
    if port is None:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(text: str) -> str:
    host, port = split_port(text)
    address = numeric(host)
    if address is None:
        raise ValueError(
            f"{text!r} is not an IP address; listen takes one of this balancer's, as ADDRESS, ADDRESS:PORT or "
            "'[IPv6]:PORT'; 0.0.0.0 or '::' means all"
        )
    _refuse_unusable(text, address)
    return _joined(str(address), port)


def _node_address(text: str) -> str:
    host, port = split_port(text)
    address = numeric(host)
    if address is None:
        _check_host_name(text, host)
        return _joined(host, port)
    _refuse_unusable(text, address)
    if address.is_unspecified:
        raise ValueError(f"{text!r} means every address of a machine; name the node's own")
    return _joined(str(address), port)


def _check_host_name(text: str, host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} is not an IP address: four numbers from 0 to 255 without leading zeros")
    if len(host) > _HOST_MAX_CHARACTERS or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            f"{text!r} is neither an IP address nor a host name; write for example 10.0.0.11:104, "
            "'[2001:db8::11]:104' or pacs-a.example:104"
        )


def _source_address(text: str) -> str:
    address = numeric(text)
    if address is None or address.is_unspecified:
        raise ValueError(f"{text!r} is not an IP address of this balancer without a port; write for example 10.0.0.5")
    _refuse_unusable(text, address)
    return str(address)


def _file_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not a whole path; write it from the root, such as /etc/equipoise/pacs.pem")
    if bad := [c for c in text if not c.isprintable()]:
        raise ValueError(f"{text!r} contains {bad[0]!r}, a control character; write the path without it")
    return text


def _host_name(text: str) -> str:
    if numeric(text) is None:
        _check_host_name(text, text)
    return text


def _ae_pattern(text: str) -> str:
    return _ae_title(text)  # `*` and `?` are allowed in a title as well, here they stand for other characters


def _certificate_name(text: str) -> str:
    name = text.strip()
    if not name or len(name) > _HOST_MAX_CHARACTERS or not name.isprintable():
        raise ValueError(
            f"{text!r} is no name of a certificate: 1 to {_HOST_MAX_CHARACTERS} printable characters, of which `*` "
            "stands for any text and `?` for one character; write for example '*.ct.hospital.example'"
        )
    return name


# An editor reads `1E5` and `007` as numbers where we take the text, so its schema lets both pass.
_AE_SCHEMA = {"type": ["string", "number"], "pattern": r"^ *[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])? *$"}

AeTitle = Annotated[str, AfterValidator(_ae_title), WithJsonSchema({**_AE_SCHEMA, "title": "AE title"})]
AeTitlePattern = Annotated[
    str, AfterValidator(_ae_pattern), WithJsonSchema({**_AE_SCHEMA, "title": "AE title, with `*` and `?`"})
]
Name = Annotated[
    str, AfterValidator(_name), WithJsonSchema({"type": ["string", "number"], "pattern": NAME_PATTERN, "title": "name"})
]
FilePath = Annotated[
    str, AfterValidator(_file_path), WithJsonSchema({"type": "string", "pattern": "^/", "title": "path of a file"})
]
CertificateNamePattern = Annotated[
    str,
    AfterValidator(_certificate_name),
    WithJsonSchema({"type": "string", "pattern": r"\S", "title": "name of a certificate, with `*` and `?`"}),
]
HostName = Annotated[
    str,
    AfterValidator(_host_name),
    WithJsonSchema({"type": "string", "pattern": r"^\S{1,253}$", "title": "host name or IP address"}),
]
CidrText = Annotated[
    str,
    AfterValidator(_cidr),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/\d{1,3})?$", "title": "network"}),
]
ListenAddress = Annotated[
    str,
    AfterValidator(_listen),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\[?[0-9A-Fa-f:.]+\]?(:\d{1,5})?$",
            "title": "IP address, with or without a port",
        }
    ),
]
NodeAddress = Annotated[
    str,
    AfterValidator(_node_address),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\S{1,262}$", "title": "IP address or host name, with or without a port"}
    ),
]
SourceAddress = Annotated[
    str,
    AfterValidator(_source_address),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9A-Fa-f:.]+$", "title": "IP address"}),
]
# IFNAMSIZ, and what the kernel takes (dev_valid_name), but for the quote: rules of nft have names in quotes.
InterfaceName = Annotated[str, Field(pattern=r'^[^\s/:"]{1,15}$')]
