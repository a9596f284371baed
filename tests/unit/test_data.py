"""Data as people have it: every bad input is one sentence that says where, and prompts are cut at the right token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scopewise.data.batch import collate, length_batches, select_rows
from scopewise.data.builtin import read_general
from scopewise.data.load import general_rows, load_benchmark
from scopewise.data.prompt import Encoded, Prompt, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Row
from scopewise.data.tables import as_rows
from scopewise.errors import ConfigError, DataError, ModelError

FORGET_ROW = {"question": "Where does Ann live?", "answer": "In Rome.", "scope": "forget"}
RETAIN_ROW = {"question": "What does Ann write?", "answer": "Crime novels.", "scope": "retain"}


def write(path: Path, *records: Any) -> str:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n", encoding="utf-8")
    return str(path)


def message(path: str | None, name: str = "jsonl", **arguments: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_benchmark(name, path, **arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- JSON lines ---------------------------------------------------------------------------------------------------


def test_json_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, "", {**RETAIN_ROW, "split": "val"}, {**RETAIN_ROW, "question": "Q2"})
    rows = load_benchmark("jsonl", path).rows
    assert [(r.scope, r.split, r.origin) for r in rows] == [
        ("forget", "train", f"{path}:1"),
        ("retain", "val", f"{path}:3"),  # the blank line counts
        ("retain", "train", f"{path}:4"),
    ]


def test_broken_json_names_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, '{"question": "Q", ')
    assert message(path).startswith(f"{path}:2: broken JSON")


@pytest.mark.parametrize("field", ["question", "answer", "scope"])
def test_missing_field(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, {k: v for k, v in RETAIN_ROW.items() if k != field})
    assert message(path).startswith(f"{path}:2: field {field!r} is missing")


@pytest.mark.parametrize("field", ["question", "answer", "scope"])
@pytest.mark.parametrize("blank", ["", " \n"])
def test_empty_field(tmp_path: Path, field: str, blank: str) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, {**RETAIN_ROW, field: blank})
    assert message(path).startswith(f"{path}:2: field {field!r} is empty")


@pytest.mark.parametrize("field", ["scope", "split"])
def test_unknown_choice(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, {**RETAIN_ROW, field: "test"})
    text = message(path)
    assert text.startswith(f"{path}:2: unknown {field} 'test'; allowed are ")
    assert (
        "forget (to be removed from the model) and retain (to be kept)" if field == "scope" else "train, val"
    ) in text


@pytest.mark.parametrize(("wrong", "near"), [("forgot", "forget"), ("Retain", "retain"), ("neighbour", "neighbor")])
def test_a_wrong_scope_names_the_nearest(tmp_path: Path, wrong: str, near: str) -> None:
    text = message(write(tmp_path / "d.jsonl", FORGET_ROW, {**RETAIN_ROW, "scope": wrong}))
    assert f"unknown scope {wrong!r}; allowed are forget (to be removed from the model) and retain (to be kept)" in text
    assert text.endswith(f"Did you mean {near!r}?")


def test_field_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {**FORGET_ROW, "answer": 3}, RETAIN_ROW)
    assert message(path).startswith(f"{path}:1: field 'answer' is int")


def test_row_that_is_no_object(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, "[1]")
    assert message(path).startswith(f"{path}:2: list; each row is an object")


@pytest.mark.parametrize(("kept", "lost"), [(FORGET_ROW, RETAIN), (RETAIN_ROW, FORGET)])
def test_no_row_of_a_scope(tmp_path: Path, kept: dict[str, str], lost: str) -> None:
    assert f"no train row of scope {lost!r}" in message(write(tmp_path / "d.jsonl", kept))


def test_only_val_rows_of_a_scope(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", {**FORGET_ROW, "split": "val"}, RETAIN_ROW)
    assert "no train row of scope 'forget'" in message(path)


def test_empty_file(tmp_path: Path) -> None:
    assert "no train row of scope 'forget'" in message(write(tmp_path / "d.jsonl"))


def test_same_question_in_both_scopes(tmp_path: Path) -> None:
    """Case and white space make no other question of it."""
    path = write(tmp_path / "d.jsonl", FORGET_ROW, RETAIN_ROW, {**RETAIN_ROW, "question": " where does  ann live?"})
    text = message(path)
    assert text.startswith(f"{path}:3: this question is in scope 'retain', and in scope 'forget' at {path}:1")


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(json.dumps(FORGET_ROW).encode() + b'\n{"question": "caf\xe9"}\n')
    assert message(str(path)).startswith(f"{path}:2: byte ")
    assert "UTF-8" in message(str(path))


def test_no_such_file(tmp_path: Path) -> None:
    assert "no such file" in message(str(tmp_path / "absent.jsonl"))


def test_folder_for_a_file(tmp_path: Path) -> None:
    assert "is a folder" in message(str(tmp_path))


def test_the_mark_that_editors_put_before_utf8_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, RETAIN_ROW)
    plain = load_benchmark("jsonl", path).content_hash()
    Path(path).write_bytes(b"\xef\xbb\xbf" + Path(path).read_bytes())
    assert load_benchmark("jsonl", path).content_hash() == plain


def test_the_file_of_general_text_is_named_by_its_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", FORGET_ROW, RETAIN_ROW)
    for name in ("absent.txt", "absent.jsonl"):
        with pytest.raises(DataError, match=r"absent\.\w+: no such file; check `data\.general`"):
            load_benchmark("jsonl", path, general=str(tmp_path / name))


def test_no_path() -> None:
    assert "set data.path" in message(None)


def test_unknown_domain(tmp_path: Path) -> None:
    assert "'law'; of jsonl allowed are privacy, copyright." in message(
        write(tmp_path / "d.jsonl", FORGET_ROW), domain="law"
    )


def test_unknown_benchmark_suggests_one() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'knowundo'\?"):
        load_benchmark("knowundu")


def test_line_separators_inside_a_value_do_not_end_the_line(tmp_path: Path) -> None:
    """U+2028 may stand unescaped in JSON; `str.splitlines` would cut there."""
    record = json.dumps({**FORGET_ROW, "answer": "a\u2028b"}, ensure_ascii=False)
    rows = load_benchmark("jsonl", write(tmp_path / "d.jsonl", record, RETAIN_ROW)).rows
    assert rows[0].answer == "a\u2028b"


# --- rows of a Python user ----------------------------------------------------------------------------------------


def test_as_rows_gives_scope_and_split() -> None:
    rows = as_rows(
        [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d", "split": "val"}], FORGET, every_split=True
    )
    assert [(r.scope, r.split) for r in rows] == [(FORGET, TRAIN), (FORGET, VAL)]
    assert as_rows([{"question": "a", "answer": "b"}], RETAIN, VAL)[0].split == VAL


def test_as_rows_names_the_row() -> None:
    with pytest.raises(DataError, match=r"forget\[1\]: field 'answer' is missing"):
        as_rows([{"question": "a", "answer": "b"}, {"question": "c"}], FORGET)


def test_as_rows_of_nothing() -> None:
    with pytest.raises(DataError, match="forget: no row"):
        as_rows([], FORGET)


def test_content_hash_does_not_depend_on_the_place(tmp_path: Path) -> None:
    one, two = (load_benchmark("jsonl", write(tmp_path / n, FORGET_ROW, RETAIN_ROW)) for n in ("a.jsonl", "b.jsonl"))
    other = load_benchmark("jsonl", write(tmp_path / "c.jsonl", FORGET_ROW, {**RETAIN_ROW, "answer": "Verse."}))
    assert one.content_hash() == two.content_hash() != other.content_hash()


# --- general text -------------------------------------------------------------------------------------------------


def test_general_text_in_rows_of_at_most_fifty_words(tmp_path: Path) -> None:
    """120 words: 50, 50 and 20; a heading of two words is too little text."""
    (tmp_path / "g.txt").write_text("= Heading =\n" + " ".join(["word"] * 120) + "\n", encoding="utf-8")
    rows = load_benchmark("builtin", general=str(tmp_path / "g.txt")).general
    assert [len(r.answer.split()) for r in rows] == [50, 50, 20]
    assert all(r.question == "" for r in rows)


def test_general_text_without_text(tmp_path: Path) -> None:
    path = write(tmp_path / "g.jsonl", {"text": "fine"}, {"txt": "x"})
    assert message(None, "builtin", general=path).startswith(f'{path}:2: needs a field "text"')
    (tmp_path / "g.txt").write_text("short\n", encoding="utf-8")
    assert "no paragraph" in message(None, "builtin", general=str(tmp_path / "g.txt"))


# --- builtin ------------------------------------------------------------------------------------------------------


def test_builtin_has_both_domains_scopes_and_splits() -> None:
    bench = load_benchmark()
    cells = {(r.domain, r.scope, r.split) for r in bench.rows}
    assert len(cells) == 2 * 2 * 2
    assert {r.domain for r in load_benchmark(domain="privacy").rows} == {"privacy"}
    assert len(bench.general) == len(read_general()) > 0


def test_builtin_takes_no_path() -> None:
    assert "the builtin benchmark is in the package" in message("x.jsonl", "builtin")


# --- knowundo -----------------------------------------------------------------------------------------------------


def release(name: str, split: str, count: int = 2) -> list[dict[str, str]]:
    return [{"text": f"{name} {split} {i}?", "labels": f"{i}."} for i in range(count)]


def flat(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("unlearn", "retention"):
        for split in ("train", "val"):
            (folder / f"{name}_{split}.json").write_text(json.dumps(release(name, split)), encoding="utf-8")
    return folder


def hub(folder: Path, domain: str) -> None:
    (folder / domain).mkdir(parents=True)
    for name in ("unlearn", "retention"):
        document = [{"train": release(f"{domain} {name}", "train"), "val": release(f"{domain} {name}", "val", 1)}]
        (folder / domain / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize(("folder", "domain"), [("knowundo-copyright", "copyright"), ("released", "privacy")])
def test_flat_release(tmp_path: Path, folder: str, domain: str) -> None:
    bench = load_benchmark("knowundo", str(flat(tmp_path / folder)))
    assert [r.question for r in bench.select(FORGET, VAL)] == ["unlearn val 0?", "unlearn val 1?"]
    assert [r.answer for r in bench.select(RETAIN, TRAIN)] == ["0.", "1."]
    assert {r.domain for r in bench.rows} == {domain}
    assert len(bench.rows) == 8


def test_flat_release_domain_given_wins(tmp_path: Path) -> None:
    bench = load_benchmark("knowundo", str(flat(tmp_path / "x")), "copyright")
    assert {r.domain for r in bench.rows} == {"copyright"}


def test_hub_folder(tmp_path: Path) -> None:
    for domain in ("privacy", "copyright"):
        hub(tmp_path / "h", domain)
    both = load_benchmark("knowundo", str(tmp_path / "h"))
    assert len(both.rows) == 2 * 2 * 3
    one = load_benchmark("knowundo", str(tmp_path / "h"), "copyright")
    assert [r.question for r in one.select(RETAIN, VAL)] == ["copyright retention val 0?"]
    assert {r.domain for r in one.rows} == {"copyright"}


def test_knowundo_folder_with_nothing_in_it(tmp_path: Path) -> None:
    assert "neither unlearn_train.json nor a folder privacy or copyright" in message(str(tmp_path), "knowundo")


def test_knowundo_no_folder(tmp_path: Path) -> None:
    assert "no such folder" in message(str(tmp_path / "absent"), "knowundo")


def test_knowundo_a_file_of_the_release_is_missing(tmp_path: Path) -> None:
    folder = flat(tmp_path / "x")
    (folder / "retention_val.json").unlink()
    assert message(str(folder), "knowundo").startswith(f"{folder / 'retention_val.json'}: no such file")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('[{"text": "Q"}]', "unlearn_train.json[0]: needs the fields 'text'"),
        ('{"a": 1}', "unlearn_train.json: dict; a list"),
        ('[\n{"text": ]', "unlearn_train.json:2: broken JSON"),
        ('[{"text": "Q", "labels": ""}]', "unlearn_train.json[0]: field 'answer' is empty"),
    ],
)
def test_knowundo_bad_file(tmp_path: Path, content: str, part: str) -> None:
    folder = flat(tmp_path / "x")
    (folder / "unlearn_train.json").write_text(content, encoding="utf-8")
    assert part in message(str(folder), "knowundo")


def test_knowundo_hub_file_without_both_splits(tmp_path: Path) -> None:
    hub(tmp_path, "privacy")
    (tmp_path / "privacy" / "unlearn.json").write_text('[{"train": []}]', encoding="utf-8")
    assert "no 'train' and 'val' in it" in message(str(tmp_path), "knowundo")


# --- prompts ------------------------------------------------------------------------------------------------------

ROW = Row("Where does Ann live?", "In Rome, by the river.", FORGET, origin="d.jsonl:1")


def test_plain_prompt(tiny: Any) -> None:
    assert Prompt().text(ROW, tiny[1]) == "Where does Ann live?\n\n"


def test_chat_prompt_is_the_tokenizers_template(tiny: Any) -> None:
    assert Prompt("chat").text(ROW, tiny[1]) == "user: Where does Ann live?\nassistant: "


@pytest.mark.parametrize("template", ["no question in it", "{{ messages[0]['role'] }}", "{{ 1 / 0 }}"])
def test_a_template_without_the_question_is_refused(tiny: Any, template: str) -> None:
    tiny[1].chat_template = template
    with pytest.raises(ModelError, match=r"data\.prompt: chat; the tokenizer's chat template"):
        encode([Row("Where?", "There.", FORGET)], tiny[1], Prompt("chat"))


def test_chat_without_a_template(tiny: Any) -> None:
    tiny[1].chat_template = None
    with pytest.raises(ConfigError, match="no chat template; set data.prompt=plain"):
        Prompt("chat").text(ROW, tiny[1])


REFUSES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
)
LEAVES_OUT = (
    "{% for m in messages if m['role'] != 'system' %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
)


@pytest.mark.parametrize("template", [REFUSES, LEAVES_OUT])
def test_a_system_message_that_the_template_does_not_take(tiny: Any, template: str) -> None:
    tiny[1].chat_template = template
    with pytest.raises(ConfigError, match=r"^data\.system: .*data\.system_role=user"):
        Prompt("chat", system="Be kind.").text(ROW, tiny[1])
    text = Prompt("chat", system="Be kind.", system_role="user").text(ROW, tiny[1])
    assert text == "<user>Be kind.\n\nWhere does Ann live?<assistant>"


@pytest.mark.parametrize("system", [None, "Be kind."])
@pytest.mark.parametrize(
    "template", ["{% broken", "{{ messages[9]['content'] }}", "{{ raise_exception('x') }}", "{{ 1 / 0 }}"]
)
def test_a_broken_template(tiny: Any, template: str, system: str | None) -> None:
    tiny[1].chat_template = template
    with pytest.raises(ModelError, match=r"^data\.prompt: chat; "):
        Prompt("chat", system=system).text(ROW, tiny[1])


@pytest.mark.parametrize(("domain", "matter"), [("privacy", "privacy issues"), ("copyright", "infringement")])
def test_direct_prompt_is_worded_for_the_domain(tiny: Any, domain: str, matter: str) -> None:
    text = Prompt(direct=True).text(Row("Q?", "A.", FORGET, domain=domain), tiny[1])
    assert text.startswith(f"You are a {domain}-sensitive assistant.")
    assert f"involves {matter}, you should refuse" in text
    assert text.endswith("following request:\nQ?\n\n")  # a line break, as in the authors' `direct_prompts`


def test_direct_prompt_of_another_domain(tiny: Any) -> None:
    with pytest.raises(DataError, match=r"d\.jsonl:1: domain 'law'"):
        Prompt(direct=True).text(Row("Q?", "A.", FORGET, domain="law", origin="d.jsonl:1"), tiny[1])


@pytest.mark.parametrize("prompt", [Prompt(), Prompt("chat"), Prompt(direct=True), Prompt("chat", True)])
def test_ids_decode_to_prompt_and_answer(tiny: Any, prompt: Prompt) -> None:
    (item,) = encode([ROW], tiny[1], prompt)
    assert tiny[1].decode(item.prompt_ids) == prompt.text(ROW, tiny[1])
    assert tiny[1].decode(item.answer_ids) == ROW.answer


def test_every_builtin_row_is_cut_at_the_answer(tiny: Any, benchmark_rows: list[Row]) -> None:
    for item in encode(benchmark_rows, tiny[1]):
        assert tiny[1].decode(item.prompt_ids) == f"{item.row.question}\n\n"
        assert tiny[1].decode(item.answer_ids) == item.row.answer


def test_answer_begins_at_the_answer_with_a_merging_tokenizer() -> None:
    """GPT-2's splitting makes one token of a final blank line, and two of one before a word.

    The ids of the prompt alone are then no prefix of those of prompt and answer; still, the answer begins at the answer.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(["Where?\n\n"] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="Ċ", clean_up_tokenization_spaces=False)
    tokenizer.eos_token = None
    assert len(tokenizer("\n\n")["input_ids"]) == 1  # what makes the case
    (item,) = encode([ROW], tokenizer)
    assert tokenizer.decode(item.answer_ids) == ROW.answer


def test_plain_text_has_one_token_before_the_answer(tiny: Any) -> None:
    """No question and no BOS: the first token has nothing to be predicted from."""
    (item,) = encode([Row("", "Snow is white.", RETAIN)], tiny[1])
    assert len(item.prompt_ids) == 1
    assert tiny[1].decode(item.prompt_ids + item.answer_ids) == "Snow is white."


def test_eos_only_where_asked_for(tiny: Any) -> None:
    (without,) = encode([ROW], tiny[1])
    (with_eos,) = encode([ROW], tiny[1], eos=True)
    assert with_eos.answer_ids == (*without.answer_ids, tiny[1].eos_token_id)
    assert tiny[1].eos_token_id not in without.answer_ids


def test_too_long_is_counted_and_listed_not_cut(tiny: Any) -> None:
    rows = [Row("Q?", "word " * (20 + i), FORGET, origin=f"d.jsonl:{i}") for i in range(7)]
    short = Row("Q?", "A.", RETAIN, origin="d.jsonl:99")
    longest = max(len(item) for item in encode(rows, tiny[1]))
    with pytest.raises(DataError) as caught:
        encode([*rows, short], tiny[1], max_length=16)
    text = str(caught.value)
    assert "7 rows do not fit" in text
    assert all(f"d.jsonl:{i} (" in text for i in range(5))
    assert "and 2 more" in text
    assert "d.jsonl:99" not in text
    assert f"set data.max_length={longest}" in text
    assert "word" not in text  # where the rows are, never what they say
    assert [len(i) for i in encode(rows, tiny[1], max_length=longest)] == [len(i) for i in encode(rows, tiny[1])]


def test_length_of_the_limit_fits(tiny: Any) -> None:
    (item,) = encode([ROW], tiny[1])
    assert encode([ROW], tiny[1], max_length=len(item)) == [item]
    with pytest.raises(DataError):
        encode([ROW], tiny[1], max_length=len(item) - 1)


def test_over_length_drop(tiny: Any) -> None:
    long = Row("Q?", "word " * 40, FORGET)
    kept = encode([long, ROW], tiny[1], max_length=40, over_length="drop")
    assert [item.row for item in kept] == [ROW]


# --- batches ------------------------------------------------------------------------------------------------------

A = Encoded(ROW, (1, 2), (3, 4))
B = Encoded(ROW, (5,), (6, 7, 8, 9))


def test_collate_by_hand() -> None:
    """Width 4, without the last tokens 4 and 9. A's answer is predicted at 1, 2; B's at 4 + 0 … 4 + 3."""
    batch = collate([A, B], pad_id=99)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 99], [5, 6, 7, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["position"].tolist() == [1, 2, 4, 5, 6, 7]
    assert batch["label"].tolist() == [3, 4, 6, 7, 8, 9]
    assert batch["row"].tolist() == [0, 0, 1, 1, 1, 1]


def test_collate_with_the_last_tokens_and_other_labels_by_hand() -> None:
    """Width 5: the state behind the last token is at the position of the last label and one further."""
    batch = collate([A, B], labels=[(1, 1), (2, 2, 2, 2)], pad_id=99, last=True)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 99], [5, 6, 7, 8, 9]]
    assert batch["position"].tolist() == [1, 2, 5, 6, 7, 8]
    assert batch["input_ids"].flatten()[batch["position"] + 1].tolist() == [3, 4, 6, 7, 8, 9]
    assert batch["label"].tolist() == [1, 1, 2, 2, 2, 2]


@pytest.mark.parametrize("keep", [[0], [1], [0, 1]])
def test_select_rows_is_collate_of_those_rows(keep: list[int]) -> None:
    import torch

    got = select_rows(collate([A, B]), torch.tensor(keep))
    want = collate([[A, B][i] for i in keep])
    assert {k: v.tolist() for k, v in got.items()} == {k: v.tolist() for k, v in want.items()}


def test_length_batches() -> None:
    """Longest first; 8 alone (two rows would be 16 > 10), then 5 + 4 padded to 10, then 3."""
    assert list(length_batches([3, 8, 4, 5], 10)) == [[1], [3, 2], [0]]
    assert list(length_batches([20], 10)) == [[0]]


def test_general_text_needs_no_question(tmp_path: Path) -> None:
    """As dicts, as rows, and as a file; each text is an answer without a question."""
    texts = ["There is snow in the valley.", "There is iron in the hill."]
    (tmp_path / "general.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = [[{"text": text} for text in texts], [{"answer": text} for text in texts], tmp_path / "general.jsonl"]
    for data in given:
        rows = general_rows(data)
        assert [(row.question, row.answer, row.scope) for row in rows] == [("", text, "retain") for text in texts]
        assert general_rows(rows) == rows
    for wrong in ([], [{"title": "x"}], ["text"], [{"text": " "}]):
        with pytest.raises(DataError):
            general_rows(wrong)
