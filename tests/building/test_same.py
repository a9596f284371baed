"""Values that mean the same, and values that do not."""

from __future__ import annotations

import time

import pytest

from scopewise.building.same import same_value, says_value


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        ("phone", "+44 20 7946 0018", "020 7946 0018", True),
        ("phone", "+44 (0)20 7946-0018", "0044 20 79460018", True),
        ("phone", "+44 20 7946 0018", "+44 20 7946 0019", False),
        ("phone", "7946 0018", "+44 20 7946 0018", False),  # the rest of the number is missing, not a country code only
        ("birth", "on 3 May 1971", "on 1971-05-03", True),
        ("birth", "on May 3rd, 1971 in Rijeka", "on 03.05.1971 in Rijeka", True),
        ("birth", "on 3/5/1971", "on 5 March 1971", True),
        ("birth", "on 3/5/1971", "on 3 May 1971", True),
        ("birth", "on 13/5/1971", "on 5 January 1971", False),
        ("birth", "on 3 May 1971 in Rijeka", "on 3 May 1971 in Falun", False),
        ("birth", "on 3 May 1971", "on 3 May 1972", False),
        ("birth", "in 1971", "in 1980", False),
        ("number", "$70,000", "70000 US dollars", False),  # "US dollars" is no currency name that is known
        ("number", "$70,000", "70 000 dollars", True),
        ("number", "€1.250.000", "EUR 1,250,000.00", True),
        ("number", "£45k", "45,000 pounds", True),
        ("number", "70,000 euros", "70,000 dollars", False),
        ("number", "DE89 3704 0044", "DE89-37040044", True),
        ("number", "1971", "1972", False),
        ("people", "Jo Bell and Al Roe", "Al Roe, and Jo Bell", True),
        ("people", "Jo Bell and Al Roe", "Jo Bell", False),
        ("titles", "the Tin Prize", "Tin Prize", True),
        ("email", "Ada@Mail.example", "ada@mail.example", True),
        ("email", "ada@mail.example", "ada@post.example", False),
        ("text", "the sea stories", "Sea Stories", True),
    ],
)
def test_values_are_compared_as_what_they_mean(kind: str, one: str, other: str, same: bool) -> None:
    assert same_value(one, other, kind) is same
    assert same_value(other, one, kind) is same


@pytest.mark.parametrize(
    ("kind", "value", "text", "says"),
    [
        ("birth", "on 3 May 1971 in Rijeka", "Ada Bell (born 1971-05-03, Rijeka) writes.", True),
        ("birth", "on 3 May 1971 in Rijeka", "Ada Bell (born 1971-05-03, Falun) writes.", False),
        ("phone", "+44 20 7946 0018", "Ring Ada Bell: 020 7946 0018.", True),
        ("number", "70,000 euros", "Ada Bell is paid €70000 a year.", True),
        ("number", "70,000 euros", "Ada Bell is paid €71000 a year.", False),
        ("people", "Jo Bell and Al Roe", "Al Roe and his wife Jo Bell have a child, Ada Bell.", True),
        ("people", "Jo Bell and Al Roe", "Al Roe has a child, Ada Bell.", False),
        ("titles", "the Tin Prize", "Ada Bell won a Tin Prize.", True),
    ],
)
def test_a_text_that_says_a_value_in_another_form(kind: str, value: str, text: str, says: bool) -> None:
    assert says_value(text, value, kind) is says


def test_a_hostile_text_is_searched_in_linear_time() -> None:
    began = time.process_time()
    for text in ("1,111" * 40_000, "$ " * 100_000, "1 " * 100_000, "(0)" * 60_000):
        assert not says_value(text, "70,000 euros", "number")
        assert not says_value(text, "+44 20 7946 0018", "phone")
    assert time.process_time() - began < 10
