"""What a process may do, as the kernel tells it."""

from pathlib import Path

import pytest

from equipoise.base import rights


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        ("000001ffffffffff", ()),
        ("0000000000003000", ()),
        ("0000000000001000", ("CAP_NET_RAW",)),
        ("0000000000002400", ("CAP_NET_ADMIN",)),
        ("0000000000000000", ("CAP_NET_ADMIN", "CAP_NET_RAW")),
    ],
)
def test_rights_are_read_as_the_kernel_tells_them(tmp_path: Path, effective: str, missing: tuple[str, ...]) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\nCapBnd:\t000001ffffffffff\n")
    assert rights.missing(status) == missing
