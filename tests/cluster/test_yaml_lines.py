from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cluster.yaml_lines import Document, Unreadable

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet="ab<: -\n", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(alphabet="abc", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("xyz"), VALUES, min_size=1))
def test_data_is_what_yaml_says(value):
    text = yaml.safe_dump(value)
    assert Document(text).data == yaml.safe_load(text) == value


@given(st.lists(st.text(alphabet="abcdef", min_size=1, max_size=4), unique=True, min_size=1, max_size=8))
def test_every_key_is_found_on_its_line(keys):
    document = Document("".join(f"{key}:\n  - 1\n  - in: 2\n" for key in keys))
    for i, key in enumerate(keys):
        assert document.line((key,)) == 3 * i + 1
        assert document.line((key, 0)) == 3 * i + 2
        assert document.line((key, 1, "in")) == 3 * i + 3


def test_a_path_that_does_not_exist_has_the_line_of_what_encloses_it():
    document = Document("a: 1\nb:\n  c: 2\n")
    assert document.line(("b", "d", 4, "e")) == 2
    assert document.line(("z",)) == 1
    assert document.line(("b", "c", "x")) == 3


def test_a_merged_key_has_its_own_line_and_an_overriding_one_wins():
    document = Document("base: &b\n  x: 1\n  y: 2\nuse:\n  <<: *b\n  y: 3\n")
    assert document.data["use"] == {"x": 1, "y": 3}
    assert (document.line(("use", "x")), document.line(("use", "y"))) == (2, 6)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: 1\nb: [1, 2\n", 3, "no valid YAML"),
        ("a: 1\n\tb: 2\n", 2, "no valid YAML"),
        ("a: {x: 1}\nb: *nowhere\n", 2, "undefined alias"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: 1\nb: \x00\n", 2, "special characters"),
        ("when: 2024-13-45\n", 1, "month must be in 1..12"),
        ("a: 1\n? [x]\n: 2\n", 2, "is no text"),
        ("a: 1\n1: 2\n", 2, "the key 1 is no text"),
    ],
)
def test_what_is_no_document_is_refused_with_its_line(text, line, message):
    with pytest.raises(Unreadable) as refused:
        Document(text)
    (problem,) = refused.value.problems
    assert message in problem.message
    assert problem.line == line


def test_all_duplicate_keys_are_told_with_both_lines():
    with pytest.raises(Unreadable) as refused:
        Document("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert {(p.line, p.path) for p in refused.value.problems} == {(5, ("a",)), (4, ("b", "c"))}
    assert any("already on line 1" in p.message for p in refused.value.problems)


def test_a_value_that_refers_to_itself_is_refused():
    with pytest.raises(Unreadable) as refused:
        Document("a: 1\nb: &b\n  c: *b\n")
    assert [(p.path, p.message) for p in refused.value.problems] == [(("b", "c"), "the value refers to itself")]


def test_very_deep_text_is_refused_and_not_a_crash():
    with pytest.raises(Unreadable):
        Document("a: " + "[" * 5000)
