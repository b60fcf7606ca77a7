"""Secrets that are known, struck from what is kept."""

from __future__ import annotations

import pytest

from workbench.runs.redaction import Redaction


def test_the_values_of_secret_variables_are_struck_wherever_they_stand() -> None:
    redact = Redaction({"HF_TOKEN": "hf_12345678", "db_password": "correct horse", "PATH": "/x"})
    given = {"text": ["log hf_12345678!", "correct horse"], "n": 3, "hf_12345678": "/x"}
    assert redact(given) == {"text": ["log (secret)!", "(secret)"], "n": 3, "hf_12345678": "/x"}


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *[("AWS_SECRET_ACCESS_KEY", True), ("API_KEY", True), ("OPENAI_APIKEY", True)],
        *[("MAX_TOKENS", False), ("KEYBOARD", False), ("WORKBENCH_PARAMETER_API_KEY", True)],
        *[("TOKENIZERS_PARALLELISM", False), ("GOOGLE_APPLICATION_CREDENTIALS", True)],
    ],
)
def test_a_variable_is_secret_by_its_name(name: str, is_secret: bool) -> None:
    assert (Redaction({name: "abcdefgh1234"})("abcdefgh1234") == "(secret)") == is_secret


def test_a_short_value_is_left_and_of_two_the_longer_is_struck_first() -> None:
    redact = Redaction({"A_TOKEN": "abc", "B_TOKEN": "12345678", "C_TOKEN": "1234567890"})
    assert redact("abc 1234567890 12345678") == "abc (secret) (secret)"
    assert Redaction({})("anything") == "anything"
