"""JSON in which no key stands twice."""

import json

import pytest

from curricle.store.strict import read_json


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 1}', "key 'a' stands twice in one object; it stands in line 1"),
        ('{\n"b": {"c": 1,\n"c": 2}}', "key 'c' stands twice in one object; it stands in line 2, 3"),
        ('[{"caf\\u00e9": 1, "caf\u00e9": 2}]', "key 'caf\u00e9' stands twice in one object; it stands in line 1"),
        ('{"\\u0061": 1, "a": 2}', "key 'a' stands twice"),
    ],
)
def test_a_key_that_stands_twice_is_named_with_its_lines(text, words):
    for form in (text, text.encode()):
        with pytest.raises(ValueError) as error:
            read_json(form)
        assert words in str(error.value)


def test_anything_else_is_what_the_standard_library_reads():
    text = '{"a": [{"b": 1}, {"b": 2}], "c": {"a": null}}'
    assert read_json(text) == json.loads(text)
    with pytest.raises(json.JSONDecodeError):
        read_json("{")
