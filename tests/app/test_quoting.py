"""What a sentence tells a user to type gives Hydra exactly the text that was meant."""

import shlex

import pytest
from hydra.errors import OverrideParseException

from heatgen.app.quoting import argument, typed, unreadable, value_of

TEXTS = """/a b/東京|/a/東京|é|/a=b|/a,b|/a{b}|{a}|/a (1)|it's|a"b|a\\"b|/a#b|a;b|a!b|a&b|a`b|<a>|[3,4|'a'|"a|x\\|/é\\|/é\\\\
${x}|\\${x}|a${b}c|2024|1e3|true|null|/~a|/a@b|choice(1,2)|glob(*)|a\\,b|""".replace("\n", "|").split("|")


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_is(text: str) -> None:
    assert value_of(argument("data.path", text)) == text
    (word,) = shlex.split(typed("data.path", text))
    assert value_of(word) == text


def test_what_cannot_be_read_is_told_how_to_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert unreadable("data.path=/a/東京").endswith("""write 'data.path="/a/東京"'.""")
    assert unreadable("data.path=~/pics").endswith("write data.path=/home/ada/pics.")
    assert "'key=a b'" in unreadable("2") and """'data.path="[1"'""" in unreadable("data.path=[1")
    for word in ("data.path=/a/東京", "data.path=[1", "a"):
        with pytest.raises(OverrideParseException):
            from hydra.core.override_parser.overrides_parser import OverridesParser

            OverridesParser.create().parse_overrides([word])
