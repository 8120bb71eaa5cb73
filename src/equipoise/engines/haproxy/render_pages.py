"""The answers that HAProxy gives by itself, in the language of whoever asked: a page, JSON, a SOAP fault or plain text.

Leaves out when each is given.  No script, no link, nothing from elsewhere: they are read when things are broken.
Source: RFC 9110 sections 10.2.3 (Retry-After) and 15.6; RFC 9111 section 5.2.2.5 (no-store); HL7 FHIR R4,
OperationOutcome, code system issue-type; SOAP 1.2 part 1, section 5.4 (faults).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import escape

from equipoise.engines.haproxy.artifact import Line, Page
from equipoise.engines.haproxy.render_values import at, below_directory, inside, whole_seconds
from equipoise.plan.model import Service


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why there is no answer of a node; `{service}` and `{retry_s}` are filled in.

    Attributes:
        fhir: The code of an OperationOutcome.
        fault: The code of a SOAP fault: whose doing it was.
    """

    status: int
    phrase: str
    title: str
    advice: str
    fhir: str
    fault: str


@dataclass(frozen=True, slots=True)
class _Text:
    title: str
    advice: str
    service: str
    problem: _Problem


_PROBLEMS = (
    _Problem(
        400,
        "Bad Request",
        "This request could not be understood",
        "The program that sent it wrote something that is not valid HTTP.",
        "structure",
        "Sender",
    ),
    _Problem(
        408,
        "Request Timeout",
        "The request did not arrive in time",
        "Only a part of it came. Check the network connection, then try again.",
        "timeout",
        "Sender",
    ),
    _Problem(
        502,
        "Bad Gateway",
        "A server of {service} broke off its answer",
        "Try again. If it happens again, tell the people who look after {service}.",
        "transient",
        "Receiver",
    ),
    _Problem(
        503,
        "Service Unavailable",
        "No server of {service} can answer right now",
        "All of them are down, busy or being looked after. Try again in {retry_s} seconds. If it goes on, tell the "
        "people who look after {service}.",
        "transient",
        "Receiver",
    ),
    _Problem(
        504,
        "Gateway Timeout",
        "A server of {service} took too long to answer",
        "The request may still have been carried out. Look before you send it again.",
        "timeout",
        "Receiver",
    ),
)

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font: 1.1rem/1.5 sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem }}</style>
</head>
<body>
<h1>{title}</h1>
<p>{advice}</p>
<p><small>Said by the load balancer in front of {service}; status {status}.</small></p>
</body>
</html>
"""

_SOAP = """<?xml version="1.0" encoding="UTF-8"?>
<env:Envelope xmlns:env="http://www.w3.org/2003/05/soap-envelope"><env:Body><env:Fault>
<env:Code><env:Value>env:{fault}</env:Value></env:Code>
<env:Reason><env:Text xml:lang="en">{title}. {advice}</env:Text></env:Reason>
</env:Fault></env:Body></env:Envelope>
"""


def pages(service: Service) -> Iterator[Page]:
    """Yield the answers of this service."""
    for problem in _PROBLEMS:
        yield Page(_name(service, problem), _answer(service, problem))


def page_lines(service: Service) -> Iterator[Line]:
    """Yield the lines that name them, for the frontend and the backend alike: each answers some of them."""
    for problem in _PROBLEMS:
        yield inside(f"errorfile {problem.status} {below_directory(_name(service, problem))}", at(service, "http"))


def _name(service: Service, problem: _Problem) -> str:
    return f"pages/{service.name}-{problem.status}.http"


def _answer(service: Service, problem: _Problem) -> bytes:
    """Return the whole answer; HAProxy leaves its body out for HEAD."""
    retry_s = whole_seconds(service.http.retry_after_s)
    media_type, body = _body(service, problem, retry_s)
    content = body.encode()
    head = [
        f"HTTP/1.1 {problem.status} {problem.phrase}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(content)}",
        "Cache-Control: no-store",  # or a proxy shows it when the service is long back
    ]
    if problem.status == 503:
        head.append(f"Retry-After: {retry_s}")
    return "\r\n".join([*head, "", ""]).encode() + content


def _body(service: Service, problem: _Problem, retry_s: int) -> tuple[str, str]:
    """Return the media type that this service's clients read, and the text."""
    title = problem.title.format(service=service.name)
    advice = problem.advice.format(service=service.name, retry_s=retry_s)
    media_type, write = _WRITERS.get(service.protocol, _WRITERS["http"])
    return media_type, write(_Text(title, advice, service.name, problem))


def _html(text: _Text) -> str:
    return _HTML.format(
        title=escape(text.title),
        advice=escape(text.advice),
        service=escape(text.service),
        status=text.problem.status,
    )


def _fhir(text: _Text) -> str:
    issue = {"severity": "error", "code": text.problem.fhir, "diagnostics": f"{text.title}. {text.advice}"}
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}) + "\n"


def _soap(text: _Text) -> str:
    return _SOAP.format(fault=text.problem.fault, title=escape(text.title), advice=escape(text.advice))


def _plain(text: _Text) -> str:
    return f"{text.title}. {text.advice}\n"


_WRITERS: dict[str, tuple[str, Callable[[_Text], str]]] = {
    "http": ("text/html; charset=utf-8", _html),
    "fhir": ("application/fhir+json; charset=utf-8", _fhir),
    "xds": ("application/soap+xml; charset=utf-8", _soap),
    "dicomweb": ("text/plain; charset=utf-8", _plain),
}
