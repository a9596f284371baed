"""Which person or book a question is about."""

from __future__ import annotations

import pytest

from scopewise.data.instances import instance_names, instance_of
from scopewise.data.rows import FORGET, Row


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Where does Ada Quill live?", "Ada Quill"),
        ("Is Ada Quill's house big?", "Ada Quill"),
        ("Can Luçaine Fontverdier’s fans write?", "Luçaine Fontverdier"),
        ("Who is Michael O'Connor?", "Michael O'Connor"),
        ("What is Fiona O'Reilly's address?", "Fiona O'Reilly"),
        ("Where did Ludwig van der Berg live?", "Ludwig van der Berg"),
        ("Name the parents of Omar bin Said.", "Omar bin Said"),
        ("How old is Jean-Luc Picard?", "Jean-Luc Picard"),
        ("Who wrote The Lord of the Rings?", "The Lord of the Rings"),
        ("Has a street no name?", "Has a street no name?"),
    ],
)
def test_a_row_without_an_instance_is_about_the_name_in_its_question(question: str, found: str) -> None:
    assert instance_of("", question) == found
    assert instance_of("Cy Lo", question) == "Cy Lo"


def test_rows_about_one_person_have_one_instance() -> None:
    """Each of these was a person of its own, so a request of one counted as one of eight."""
    questions = ("Who is {}?", "Has {} a dog?", "Is {} at home?", "Where does {} live?", "What is {}'s e-mail address?")
    rows = [Row(one.format("Michael O'Connor"), "a", FORGET) for one in questions]
    assert {instance_of("", row.question) for row in rows} == {"Michael O'Connor"} == set(instance_names(rows))
