"""What a site template is: the services that one product needs, with placeholders, and where each value is from.

Leaves out what becomes of it (`config/templating.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = "ours"  # instead of a document: no public source says it


@dataclass(frozen=True, slots=True)
class Ask:
    """A value that a template asks for: what it is, what it is where nothing is given, and whether it may be a list."""

    about: str
    default: str | None = None
    takes_list: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """One site template.

    Attributes:
        name: The name of its file.
        title: The product.
        about: What the template does and expects.
        asks: What whoever uses it must say, by name.
        services: The services by part, as in a document; `${name}` stands for a value that is asked for.
        documents: The documents that values are from, by a short word.
        sources: Where each value is from, by its path: the short word of a document or `ours`, a colon, the place.
        text: The file as it is.
    """

    name: str
    title: str
    about: str
    asks: Mapping[str, Ask]
    services: Mapping[str, Mapping[str, Any]]
    documents: Mapping[str, str]
    sources: Mapping[str, str]
    text: str
