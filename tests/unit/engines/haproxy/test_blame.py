"""Lines as HAProxy 2.6.12 and 2.8.25 printed them."""

from equipoise.engines.base import Refusal
from equipoise.engines.haproxy.artifact import Artifact, Line, ServerLine
from equipoise.engines.haproxy.blame import last_words, refusals

ARTIFACT = Artifact(
    lines=(
        Line("frontend web", ("services", "web")),
        Line("    bind 127.0.0.1:80", ("services", "web", "listen")),
        ServerLine("    server a x:1", ("services", "web", "nodes", "a", "address"), "web/a", 100),
    )
)
LAST = """[ALERT]    (9) : config : Error(s) found in configuration file : /run/candidate.cfg
[ALERT]    (9) : config : Fatal errors found in configuration.
"""


def test_a_line_leads_to_its_keys() -> None:
    output = (
        "[NOTICE]   (9) : haproxy version is 2.6.12-1+deb12u4\n"
        "[ALERT]    (9) : config : parsing [/run/candidate.cfg:2] : unknown keyword 'bint' in 'frontend' section\n"
    )
    assert refusals(output + LAST, ARTIFACT) == [
        Refusal(
            "HAProxy refuses what this means for it: unknown keyword 'bint' in 'frontend' section",
            ("services", "web", "listen"),
        )
    ]


def test_a_server_leads_to_its_node() -> None:
    output = (
        "[ALERT]    (9) : config : [/run/candidate.cfg:3] : 'server web/a' : could not resolve address 'x'.\n"
        "[ALERT]    (9) : config : 'server web/a' : unable to load SSL certificate file.\n"
    )
    first, second = refusals(output + LAST, ARTIFACT)
    assert first.path == second.path == ("services", "web", "nodes", "a", "address")
    assert first.message.endswith("'server web/a' : could not resolve address 'x'")


def test_what_has_no_place_is_told_all_the_same() -> None:
    (refusal,) = refusals("[ALERT]    (9) : [haproxy.main()] Cannot raise FD limit.\n", ARTIFACT)
    assert refusal.path == ()
    assert "Cannot raise FD limit" in refusal.message
    assert refusals("Segmentation fault\n", ARTIFACT)[0].message.endswith("Segmentation fault")
    assert refusals("", ARTIFACT)[0].message.endswith("it says nothing")


def test_last_words_are_the_alarms() -> None:
    lines = ["[WARNING]  (9) : slow", "[ALERT]    (9) : Starting frontend web: cannot bind socket", *LAST.splitlines()]
    assert last_words(lines) == "Starting frontend web: cannot bind socket"
    assert last_words(["first", "", "last"]) == "first; last"
    assert last_words([]) == "it was killed, or ended without a word"
    assert last_words(["[NOTICE] (1) : Loading success.", "[WARNING] (1) : Former worker (7) exited with code 0"]) == (
        "it was killed, or ended without a word"
    )
