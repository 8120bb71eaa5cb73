"""How two machines meet: the first invites, a person carries one line to the second, and that line works once.

The token has a secret, by which the first knows who may join, and what stands for the first one's certificate, by which
the second knows whom it may tell the secret.  A checksum finds what was mistyped before anything is sent.
Leaves out connections (`joining`) and what joining changes.
Source: RFC 4648 section 6 (base32: no 0, 1, 8 or 9, and case does not matter).
"""

import base64
import hmac
import secrets
import zlib
from dataclasses import dataclass, field

from equipoise.base.clock import Clock
from equipoise.base.errors import EquipoiseError

LASTS_S = 900.0
MAX_WRONG = 5  # a person pastes the wrong line once or twice; a guess has one chance in 2^80
_PREFIX = "eqp1-"
_SECRET_BYTES = 10
_FINGERPRINT_BYTES = 16
_CHECK_BYTES = 4
_GROUP = 8  # characters, so that it can be read out
_LETTERS = 8 * (_SECRET_BYTES + _FINGERPRINT_BYTES + _CHECK_BYTES) // 5
_MISREAD = str.maketrans({"0": "O", "1": "I", "8": "B"})
_AGAIN = "; have the first machine invite again, and use the new token"


@dataclass(frozen=True, slots=True)
class Token:
    """What the second machine has to know.

    Attributes:
        secret: As it is sent; it stands in no log.
        fingerprint: The first half of the SHA-256 of the first machine's certificate.
    """

    secret: str = field(repr=False)
    fingerprint: bytes

    def __str__(self) -> str:
        """Return the line that a person carries."""
        known = base64.b32decode(self.secret) + self.fingerprint
        letters = base64.b32encode(known + _check(known)).decode()
        return _PREFIX + "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))

    def fits(self, fingerprint: bytes) -> bool:
        """Say whether a certificate with this SHA-256 is the first machine's."""
        return hmac.compare_digest(fingerprint[:_FINGERPRINT_BYTES], self.fingerprint)


def read_token(text: str) -> Token:
    """Return what a line says that a person typed or pasted.  Raises: EquipoiseError, without the line."""
    line = "".join(text.split())
    if not line.lower().startswith(_PREFIX):
        raise EquipoiseError(f"a token begins with {_PREFIX!r}; paste the whole line that the first machine showed")
    letters = line[len(_PREFIX) :].replace("-", "").upper().translate(_MISREAD)
    if len(letters) != _LETTERS:
        raise EquipoiseError(
            f"the token has {len(letters)} letters and digits behind {_PREFIX!r}, it should have {_LETTERS}; "
            "paste the whole line that the first machine showed"
        )
    try:
        content = base64.b32decode(letters)
    except ValueError:
        raise EquipoiseError(f"the token has a character that no token has{_COMPARE}") from None
    known, check = content[:-_CHECK_BYTES], content[-_CHECK_BYTES:]
    if check != _check(known):
        raise EquipoiseError(f"the token is mistyped: its checksum is wrong{_COMPARE}")
    return Token(base64.b32encode(known[:_SECRET_BYTES]).decode(), known[_SECRET_BYTES:])


_COMPARE = "; compare it with the line that the first machine showed"


def _check(known: bytes) -> bytes:
    return zlib.crc32(_PREFIX.encode() + known).to_bytes(_CHECK_BYTES)


class Invitation:
    """One token that may still be used; it ends with time, with wrong guesses, and when it has been used."""

    def __init__(self, fingerprint: bytes, clock: Clock, lasts_s: float = LASTS_S) -> None:
        secret = base64.b32encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        self.token = Token(secret, fingerprint[:_FINGERPRINT_BYTES])
        self._clock = clock
        self._lasts_s = lasts_s
        self._ends_s = clock.monotonic() + lasts_s
        self._wrong = 0
        self._used = False

    @property
    def left_s(self) -> float:
        """Return how long it can still be used; 0 where it is over, for whatever reason."""
        if self._used or self._wrong >= MAX_WRONG:
            return 0.0
        return max(0.0, self._ends_s - self._clock.monotonic())

    def use(self, secret: str) -> None:
        """Let in who knows the secret, once.  Raises: EquipoiseError with the reason and the way out."""
        if self._used:
            raise EquipoiseError(f"this token has been used already{_AGAIN}")
        if self._wrong >= MAX_WRONG:
            raise EquipoiseError(f"the invitation ended after {MAX_WRONG} wrong secrets{_AGAIN}")
        if self._clock.monotonic() >= self._ends_s:
            raise EquipoiseError(f"this token is over: it lasts {self._lasts_s / 60:g} minutes{_AGAIN}")
        if not hmac.compare_digest(secret.encode(errors="replace"), self.token.secret.encode()):
            self._wrong += 1
            raise EquipoiseError("the first machine does not know this token; use the newest one that it showed")
        self._used = True
