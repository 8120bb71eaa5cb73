"""Check `tcp`: connect and close.  Passes when the node's port takes the connection.

It sees a machine or a program that is gone, not one that hangs: the kernel takes connections for a program that no
longer reads them.  The connection is closed in order (FIN, not RST).
"""

from equipoise.config.base import CheckParams
from equipoise.health.base import Check, Link, Result


class Params(CheckParams):
    """Nothing beside what every check has."""


async def probe(link: Link, params: Params) -> Result:
    """Pass: the runner has connected, and closes."""
    return Result.passed("connected")


CHECK = Check(name="tcp", params=Params, probe=probe)
