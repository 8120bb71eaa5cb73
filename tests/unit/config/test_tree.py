"""YAML as text with places, and every way to make a small document large or ambiguous."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from equipoise.base.errors import ConfigError, Problem
from equipoise.config.tree import MAX_DOCUMENT_BYTES, MAX_SCALAR_CHARACTERS, Place, read_tree


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_tree(text, "site.yaml")
    return str(caught.value)


@pytest.mark.parametrize("word", ["1E5", "NO", "007", "0x1F", "1_000", "on", "2031-03-04", ".inf", "=", "Null", "1:30"])
def test_a_scalar_is_the_text_as_written(word: str) -> None:
    assert read_tree(f"a: {word}", "f").data == {"a": word}


@pytest.mark.parametrize("word", ["", "~", "null"])
def test_only_nothing_tilde_and_null_are_no_value(word: str) -> None:
    assert read_tree(f"a: {word}", "f").data == {"a": None}
    assert read_tree(f"a: '{word}'", "f").data == {"a": word}


def test_a_key_is_text_too() -> None:
    assert read_tree("{NO: a, 1E5: b, ~: c}", "f").data == {"NO": "a", "1E5": "b", "~": "c"}


def test_places_count_from_one() -> None:
    tree = read_tree("\ufeffa:\n  b: [x, y]\n", "f")
    assert tree.keys["a", "b"] == Place(2, 3)
    assert tree.values["a", "b"] == Place(2, 6)
    assert tree.values["a", "b", 1] == Place(2, 10)


def test_a_duplicate_key_names_both_lines_and_the_rest_is_read() -> None:
    tree = read_tree("a: 1\nb: {c: 1}\na: 2\n", "f")
    assert [str(problem) for problem in tree.problems] == [
        "f:3:1: a: written twice, in lines 1 and 3; join the two or remove one"
    ]
    assert tree.data == {"a": "1", "b": {"c": "1"}}


def test_an_alias_is_written_out() -> None:
    tree = read_tree("a: &x {p: 1}\nb: *x\n", "f")
    assert tree.data == {"a": {"p": "1"}, "b": {"p": "1"}}
    assert tree.values["b", "p"] == Place(1, 11)


def test_aliases_that_multiply_are_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
    assert "aliases make this document too large" in refusal("\n".join(rows))


def test_aliases_that_nest_are_refused() -> None:
    rows = ["a0: &a0 x", *(f"a{i}: &a{i} [[[[*a{i - 1}]]]]" for i in range(1, 500))]
    assert "aliases make this document too large" in refusal("\n".join(rows))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: b: c", "site.yaml:1:5: not valid YAML: mapping values are not allowed here; check the indentation"),
        (
            "a:\n\t- x",
            "site.yaml:2:1: not valid YAML: found character '\\t' that cannot start any token; indent with spaces",
        ),
        ("a: [1, 2", "site.yaml:1:9: not valid YAML"),
        ('a: "x', "a quote that opens here is never closed"),
        ("a: \x07", "site.yaml:1:4: the character U+0007 is not allowed"),
        ("a: 1\nb: \ud800", "site.yaml:2:4: the character U+D800"),
        ('a: "\\UFFFFFFFF"', "not valid YAML after this place"),
        ("a: !!python/object:os.system x", "site.yaml:1:4: the tag"),
        ("a: !!str x", "site.yaml:1:4: the tag"),
        ("a: &x [*x]", "site.yaml:1:8: '*x' refers to nothing that is complete before it"),
        ("<<: {a: 1}", "merge keys ('<<') are not used here"),
        ("? [a]\n: b", "a key is one word"),
        ("a: 1\n---\nb: 2", "site.yaml:3:1: a second document begins here"),
        ("[" * 500_000, "nested more than 32 levels deep"),
        ("a: " + "x" * (MAX_SCALAR_CHARACTERS + 1), "a value of 4097 characters, at most 4096"),
        ("a: é" + " " * MAX_DOCUMENT_BYTES, "the document has 1048581 bytes, at most 1048576"),
    ],
)
def test_what_is_refused_says_where_and_why(text: str, said: str) -> None:
    assert said in refusal(text)


YAML_PIECES = ["a", "b: ", "- ", "\n", "  ", "[", "]", "{", "}", ", ", "&x ", "*x", "!t ", '"', "'", "|", ">", "? "]
YAML_PIECES += [
    ": ",
    "#",
    "%YAML 1.1\n",
    "---\n",
    "...\n",
    "\t",
    "\\",
    "<<: ",
    "~",
    "é",
    "\ufeff",
    "\r",
    "0",
    "-",
    "@",
    "`",
]


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(YAML_PIECES), max_size=40).map("".join)))
@example("%YAML 1.1")
@example("? ? ? a")
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    found: tuple[Problem, ...] = ()
    try:
        found = read_tree(text, "f").problems
    except ConfigError as error:
        found = error.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in found)
