"""Templates are found by their files; where each value is from is read from the comments."""

import pytest

from equipoise.templates.model import Ask
from equipoise.templates.reader import Templates, names, parse, read

TEXT = """\
title: Archive
about: >-
  Two lines
  in one.
asks:
  vip: the address
  title: {about: the title, default: NO, list: true}  # ours: usual
documents:
  guide: A guide
services:
  # A line of its own says nothing of values.
  web:
    protocol: http  # guide: page 1
    ports: [80, 81]  # guide: page 2
    listen: ${vip}
    health:  # ours: all of it
      check: http
      path: /#top  # guide: page 3
    persistence: {by: source_ip, ttl: 5m}  # guide: page 4
"""


def test_values_are_the_text_as_written() -> None:
    template = parse("archive", TEXT)
    assert (template.name, template.title, template.about) == ("archive", "Archive", "Two lines in one.")
    assert template.asks == {"vip": Ask("the address"), "title": Ask("the title", "NO", takes_list=True)}
    assert template.services["web"]["ports"] == ["80", "81"]
    assert template.services["web"]["health"] == {"check": "http", "path": "/#top"}
    assert template.documents == {"guide": "A guide"}
    assert template.text == TEXT


def test_a_source_stands_behind_the_value_or_the_key_above() -> None:
    sources = parse("archive", TEXT).sources
    assert sources["services.web.protocol"] == "guide: page 1"
    assert sources["services.web.ports"] == "guide: page 2"
    assert sources["services.web.health.check"] == "ours: all of it"
    assert sources["services.web.health.path"] == "guide: page 3"
    assert sources["services.web.persistence.by"] == sources["services.web.persistence.ttl"] == "guide: page 4"
    assert sources["asks.title.default"] == "ours: usual"
    assert "services.web.listen" not in sources


def test_all_are_found_and_read_when_asked_for() -> None:
    assert "infinitt_pacs" in names()
    assert list(names()) == sorted(names())
    assert list(Templates()) == list(names())
    assert len(Templates()) == len(names())
    assert Templates()["orthanc"] is read("orthanc")


def test_an_unknown_one_is_no_key() -> None:
    assert "infinit" not in Templates()
    with pytest.raises(KeyError):
        read("../reader")
