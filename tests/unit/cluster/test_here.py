from pathlib import Path

import pytest

from equipoise.base.errors import ConfigError, EquipoiseError
from equipoise.cluster.here import here_file, read_here, remove_here, write_here
from equipoise.config.cluster import Here


def put(state: Path, content: bytes) -> Path:
    path = here_file(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "here",
    [
        Here(),
        Here(role="primary"),
        Here(peer="10.0.0.3", address="10.0.0.2", interface="eth0", role="secondary"),
        Here(peer="2001:db8::3", address="2001:db8::2", interface="br-lan.100", role="primary"),
        Here(peer="10.0.0.3", interface="null", role="primary"),
    ],
)
def test_what_is_written_is_read(tmp_path: Path, here: Here) -> None:
    assert read_here(tmp_path) is None
    write_here(tmp_path, here)
    assert read_here(tmp_path) == here
    remove_here(tmp_path)
    remove_here(tmp_path)
    assert read_here(tmp_path) is None


def test_the_file_says_to_a_person_what_it_is(tmp_path: Path) -> None:
    write_here(tmp_path, Here(peer="2001:db8::3", role="secondary"))
    comment, _, rest = here_file(tmp_path).read_text().partition("peer:")
    assert all(line.startswith("#") for line in comment.splitlines())
    assert "cluster join" in comment
    assert rest == ' "2001:db8::3"\nrole: secondary\n'


def test_an_error_names_the_file_and_the_place(tmp_path: Path) -> None:
    path = put(tmp_path, b"# ours\npeer: 10.0.0.3\nrole: tertiary\nrouter_id: 51\n")
    with pytest.raises(ConfigError) as error:
        read_here(tmp_path)
    problems = {problem.path: problem for problem in error.value.problems}
    assert set(problems) == {"role", "router_id"}
    assert (problems["role"].file, problems["role"].line) == (str(path), 3)
    assert "tertiary" in problems["role"].message
    assert problems["router_id"].line == 4


@pytest.mark.parametrize(
    "content", [b"- peer\n", b"peer", b"peer: [", b"peer: 10.0.0.3\npeer: 10.0.0.4\n", b"\xff\xfe"]
)
def test_what_is_no_mapping_of_keys_is_refused(tmp_path: Path, content: bytes) -> None:
    path = put(tmp_path, content)
    with pytest.raises(EquipoiseError, match=str(path)):
        read_here(tmp_path)


def test_a_file_without_keys_says_nothing(tmp_path: Path) -> None:
    put(tmp_path, b"# nothing yet\n")
    assert read_here(tmp_path) == Here()


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    here_file(tmp_path).mkdir(parents=True)
    with pytest.raises(EquipoiseError, match="cannot read"):
        read_here(tmp_path)
    with pytest.raises(EquipoiseError, match="cannot write"):
        write_here(tmp_path, Here(role="primary"))
    with pytest.raises(EquipoiseError, match="cannot remove"):
        remove_here(tmp_path)
