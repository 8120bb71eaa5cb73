import random
import string
from itertools import pairwise

import pytest

from equipoise.base.errors import EquipoiseError
from equipoise.cluster.invitation import LASTS_S, MAX_WRONG, Invitation, Token, read_token
from tests.unit.cluster.two_machines import SetClock

FINGERPRINT = bytes(range(32))


def test_a_token_is_one_line_that_says_the_same_when_read() -> None:
    token = Invitation(FINGERPRINT, SetClock()).token
    line = str(token)
    assert line.startswith("eqp1-")
    assert len(line.split()) == 1
    assert read_token(line) == token
    assert token.fits(FINGERPRINT)
    assert not token.fits(bytes(32))
    assert not token.fits(FINGERPRINT[:8])


def test_the_line_stays_what_it_is_from_version_to_version() -> None:
    token = Token("AAAAAAAAAAAAAAAA", bytes(16))
    assert str(token) == "eqp1-AAAAAAAA-AAAAAAAA-AAAAAAAA-AAAAAAAA-AAAAAAAA-ACNBUQQR"


def test_no_two_secrets_are_alike() -> None:
    secrets = {Invitation(FINGERPRINT, SetClock()).token.secret for _ in range(100)}
    assert len(secrets) == 100
    assert {len(secret) * 5 for secret in secrets} == {80}


def test_a_token_does_not_show_its_secret() -> None:
    token = Invitation(FINGERPRINT, SetClock()).token
    assert token.secret not in repr(token)


def test_how_a_person_types_it_does_not_matter() -> None:
    token = Token("ABOI23456777AAAA", FINGERPRINT[:16])
    line = str(token)
    assert read_token(f"  {line.lower()}\n") == token
    assert read_token("eqp1-" + line[5:].replace("-", "")) == token
    assert read_token(line[:30] + "\n  " + line[30:]) == token
    assert read_token("eqp1-" + line[5:].replace("O", "0").replace("I", "1").replace("B", "8")) == token


def test_every_single_typo_and_every_swap_is_found() -> None:
    line = str(Invitation(FINGERPRINT, SetClock()).token)
    body = line[5:]
    places = [at for at, letter in enumerate(body) if letter != "-"]
    chance = random.Random(7)
    for at in places:
        others = [letter for letter in string.ascii_uppercase + "234567" if letter != body[at]]
        with pytest.raises(EquipoiseError, match="mistyped"):
            read_token("eqp1-" + body[:at] + chance.choice(others) + body[at + 1 :])
    for one, two in pairwise(places):
        if body[one] != body[two]:
            letters = list(body)
            letters[one], letters[two] = letters[two], letters[one]
            with pytest.raises(EquipoiseError, match="mistyped"):
                read_token("eqp1-" + "".join(letters))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "a token begins with"),
        ("10.0.0.2", "a token begins with"),
        ("eqp2-AAAA", "a token begins with"),
        ("eqp1-AAAA", "has 4 letters and digits"),
        ("eqp1-" + "A" * 1000, "has 1000 letters and digits"),
        ("eqp1-" + "9" * 48, "a character that no token has"),
        ("eqp1-" + "é" * 48, "a character that no token has"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_without_the_line(line: str, said: str) -> None:
    with pytest.raises(EquipoiseError, match=said) as error:
        read_token(line)
    assert line[5:] == "" or line[5:] not in str(error.value)


def test_an_invitation_is_used_once() -> None:
    invitation = Invitation(FINGERPRINT, SetClock())
    assert invitation.left_s == LASTS_S == 15 * 60
    invitation.use(invitation.token.secret)
    assert invitation.left_s == 0
    with pytest.raises(EquipoiseError, match="used already"):
        invitation.use(invitation.token.secret)


def test_an_invitation_ends_after_a_quarter_of_an_hour() -> None:
    clock = SetClock()
    invitation = Invitation(FINGERPRINT, clock)
    clock.wall_s -= 100_000  # a time of day that somebody corrects changes nothing
    clock.now_s += LASTS_S - 1
    assert invitation.left_s == 1
    clock.now_s += 1
    assert invitation.left_s == 0
    with pytest.raises(EquipoiseError, match="lasts 15 minutes"):
        invitation.use(invitation.token.secret)


def test_an_invitation_ends_after_a_few_wrong_secrets() -> None:
    invitation = Invitation(FINGERPRINT, SetClock())
    for wrong in ["", "A" * 16, invitation.token.secret[:-1], invitation.token.secret.lower(), "\ud800é"]:
        assert invitation.left_s > 0
        with pytest.raises(EquipoiseError, match="does not know this token"):
            invitation.use(wrong)
    assert invitation.left_s == 0
    with pytest.raises(EquipoiseError, match=f"after {MAX_WRONG} wrong secrets"):
        invitation.use(invitation.token.secret)
