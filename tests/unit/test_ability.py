"""General ability: files are read as the hub has them, and numbers are the harness's own."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM

from scopewise.ability.documents import documents
from scopewise.ability.measure import measure_ability, perplexity
from scopewise.ability.model import ScoredModel
from scopewise.ability.tasks import load_tasks, quiet, true_share
from scopewise.api import evaluate
from scopewise.config import PAPER_ABILITY, AbilitySection
from scopewise.errors import ConfigError, DataError
from scopewise.metrics.columns import columns_of
from scopewise.models import score as scoring
from scopewise.models.cache import AnswerCache
from scopewise.models.engine import Engine
from scopewise.run_file import load_config

UTILITY = Path(__file__).parents[3] / "shared" / "data" / "utility"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All tasks in small, in the layouts that they were released in."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    header = "question,choice0,choice1,choice2,choice3,answer\n"
    write("mmlu/test/anatomy_test.csv", header + '"What, then?",a,b,c,d,1\nWhich?,e,f,g,h,3\n')
    write("mmlu/test/astronomy_test.csv", "Where?,near,far,up,down,C\n")  # as first released
    for subject in ("anatomy", "astronomy"):
        write(f"mmlu/dev/{subject}_dev.csv", header + "Example?,p,q,r,s,0\n")

    def chosen(question: str, choices: list[str], right: int) -> dict[str, str]:
        listed = " ".join(f"Answer{i}: {c}" for i, c in enumerate(choices, 1))
        text = f"Please choose the correct answer to the question: {question}\n\n{listed}\n\nAnswer format: answer1/…"
        return {"instruction": text, "input": "", "output": "", "answer": f"answer{right}"}

    arc = [chosen("Why is it so?\nSay.", ["it is", "it was not", "no one knows"], 2), chosen("How?", ["so", "well"], 1)]
    write("commonsense/ARC-Challenge_test.json", json.dumps(arc))
    siqa = [chosen("Ada went home. Why did Ada do this?", ["to rest", "to run", "to rain"], 3)] * 2
    write("commonsense/social_i_qa_test.json", json.dumps(siqa))
    write(
        "truthfulqa/TruthfulQA.csv",
        "\ufeffType,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source\n"
        "A,B,Is it?,It is,It is; It is so.; It is,It is not; Never,x\n",
    )
    problems = [{"question": "Who?", "options": ["I", "you", "he", "she"], "answer": "B"}]
    write("race.jsonl", json.dumps({"article": "It was you.", "problems": repr(problems)}) + "\n")
    write(
        "wikitext2/test.txt",
        " \n = Ada Quill = \n \n She wrote . \n \n = = Life = = \n \n Long . \n \n = Rook = \n \n A bird . \n",
    )
    return tmp_path


def test_released_layouts_become_the_columns_of_the_hub(folder: Path) -> None:
    mmlu = documents("mmlu", folder)
    assert mmlu[0] == {
        "subject": "anatomy", "split": "test", "question": "What, then?", "choices": ["a", "b", "c", "d"], "answer": 1,
    }  # fmt: skip
    assert [d["answer"] for d in mmlu] == [1, 3, 2, 0, 0]
    assert documents("arc_challenge", folder)[0] == {
        "question": "Why is it so?\nSay.",
        "choices": {"text": ["it is", "it was not", "no one knows"], "label": ["A", "B", "C"]},
        "answerKey": "B",
    }
    siqa = documents("social_iqa", folder)[0]
    assert f"{siqa['context']} {siqa['question']}" == "Ada went home. Why did Ada do this?"
    assert (siqa["answerC"], siqa["label"]) == ("to rain", "3")
    truth = documents("truthfulqa_mc2", folder)[0]
    assert truth["mc1_targets"] == {"choices": ["It is.", "It is not.", "Never."], "labels": [1, 0, 0]}
    assert truth["mc2_targets"] == {"choices": ["It is.", "It is so.", "It is not.", "Never."], "labels": [1, 1, 0, 0]}


@pytest.mark.skipif(not UTILITY.is_dir(), reason="needs ../shared/data/utility (see tests/SKIPS.md)")
def test_the_released_files_are_read_whole() -> None:
    """14,042 + 285, 1,172, 1,954 and 813 questions, as their readme counts them; 62 articles, as the hub's dataset has."""
    counts = {"mmlu": 14042 + 285, "arc_challenge": 1172, "social_iqa": 1954, "truthfulqa_mc1": 813, "wikitext": 62}
    assert {name: len(documents(name, UTILITY)) for name in counts} == counts


@pytest.mark.parametrize(
    ("task", "file", "text", "sentence"),
    [
        (
            "race",
            "race.jsonl",
            '{"article": "x"}\n',
            "race.jsonl:1: no problems; a line has the columns article, problems",
        ),
        ("race", "race.jsonl", "{\n", "broken JSON"),
        ("race", "race.jsonl", "\n", "no question of race"),
        (
            "mmlu",
            "mmlu/test/anatomy_test.csv",
            "What?,a,b,c,1\n",
            "anatomy_test.csv, record 1: a record is question, four",
        ),
        ("arc_challenge", "commonsense/ARC-Challenge_test.json", "[{}]", '[0]: "instruction" holds a question'),
        ("truthfulqa_mc1", "truthfulqa/TruthfulQA.csv", "Question\nWhy?\n", "needs the columns Question, Best Answer"),
    ],
)
def test_a_broken_file_is_named(task: str, file: str, text: str, sentence: str, folder: Path) -> None:
    (folder / file).write_text(text)
    with pytest.raises(DataError) as caught:
        documents(task, folder)
    assert sentence in str(caught.value)


def test_what_is_missing_is_said(tmp_path: Path, tiny: Any, folder: Path, monkeypatch: Any) -> None:
    """Before anything is forwarded: files, tasks, the hub, a chat template, the harness itself."""

    def refused(error: type[Exception], sentence: str, **settings: Any) -> None:
        with pytest.raises(error) as caught:
            load_tasks(AbilitySection(**settings))
        assert sentence in str(caught.value)

    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    refused(
        DataError, "has no race.jsonl for race; save EleutherAI/race (high) of the hub", tasks=("race",), path=empty
    )
    refused(DataError, "has no mmlu.jsonl or mmlu for mmlu", tasks=("paper",), path=empty)
    refused(DataError, "no such folder", tasks=("race",), path=empty + "x")
    refused(DataError, "race: ", tasks=("race",))
    refused(DataError, "or save it as race.jsonl in a folder and set evaluate.ability.path", tasks=("race",))
    refused(ConfigError, "cannot be read from evaluate.ability.path", tasks=("hellaswag",), path=str(folder))
    refused(ConfigError, "'race' is not among evaluate.ability.tasks", tasks=("mmlu",), shots={"race": 1})
    refused(ConfigError, "limit: 'race' is not among", tasks=("mmlu",), limit={"race": 1})
    refused(DataError, "has 1 of anatomy", tasks=("mmlu",), shots={"mmlu": 2}, path=str(folder))
    refused(ConfigError, "no examples in local files", tasks=("race",), shots={"race": 2}, path=str(folder))
    model, tokenizer = tiny
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="this tokenizer has no chat template"):
        measure_ability(Engine(model, tokenizer), AbilitySection(tasks=("race",), path=str(folder), chat_template=True))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(ConfigError, "lm-evaluation-harness is not installed; install scopewise[ability]", tasks=("race",))


@pytest.mark.slow
def test_an_unknown_task_is_refused_with_the_nearest() -> None:
    """Slow: the harness reads some fifteen thousand task files to know."""
    with pytest.raises(
        ConfigError, match="lm-eval has no task 'rase'; `lm_eval ls tasks` lists them. Did you mean 'race'?"
    ):
        load_tasks(AbilitySection(tasks=("rase",)))


def test_the_run_file_knows_the_tasks_of_the_paper() -> None:
    assert load_config(overrides=["evaluate.ability.tasks=[paper]"]).evaluate.ability.tasks == PAPER_ABILITY
    with pytest.raises(ConfigError, match="Did you mean 'tasks'?"):
        load_config(overrides=["evaluate.ability.task=[paper]"])


def test_true_share_by_hand() -> None:
    """exp of -1, -2, -3 with the first and third true: (1 + e^-2) / (1 + e^-1 + e^-2). Far down it is the same."""
    document = {"mc2_targets": {"labels": [1, 0, 1]}}
    want = (1 + math.exp(-2)) / (1 + math.exp(-1) + math.exp(-2))
    for shift in (0, -5000):
        results = [(shift - i, False) for i in (1.0, 2.0, 3.0)]
        assert true_share(document, results)["acc"] == pytest.approx(want)


@pytest.mark.parametrize("chat", [False, True])
def test_values_are_those_of_the_harness(chat: bool, tiny: Any, folder: Path) -> None:
    """Its own model at batch 3, over every task: log P of each choice, one prompt too long for the context included."""
    model, tokenizer = tiny
    model.config.max_position_embeddings = 60
    settings = AbilitySection(tasks=(*PAPER_ABILITY, "truthfulqa_mc1", "wikitext"), path=str(folder), shots={"mmlu": 1})
    with quiet():
        tasks = load_tasks(settings)
        given = {"tasks": {t.task_name: t for members in tasks.values() for t in members}}
        options = {"bootstrap_iters": 0, "apply_chat_template": chat, "fewshot_as_multiturn": chat}
        theirs = lm_eval.evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3), given, **options)
        mine = ScoredModel(Engine(model, tokenizer, max_tokens=300))
        ours = lm_eval.evaluate(mine, given, **options)
    assert mine.cut
    for name in given["tasks"]:
        for a, b in zip(ours["samples"][name], theirs["samples"][name], strict=True):
            assert a["arguments"] == b["arguments"]
            if name == "wikitext":
                assert a["word_perplexity"] == pytest.approx(b["word_perplexity"], rel=1e-4)
                continue
            for (got,), (want,) in zip(a["resps"], b["resps"], strict=True):
                assert got[0] == pytest.approx(want[0], rel=1e-4, abs=1e-3)
                assert got[1] == want[1]
            assert a["acc"] == pytest.approx(b["acc"], abs=1e-5)


def test_what_is_reported(tiny: Any, folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Percent over all subjects, the mean over tasks, intervals of 1.96 standard errors, and nothing forwarded twice."""
    model, tokenizer = tiny
    model.train()
    settings = AbilitySection(tasks=("mmlu", "arc_challenge"), path=str(folder))
    values = measure_ability(Engine(model, tokenizer), settings, cache=AnswerCache(tmp_path / "cache", model))
    assert model.training
    assert set(values) == {"ability/mmlu", "ability/arc_challenge", "ability/arc_challenge_norm", "ability/mean"}
    mmlu = values["ability/mmlu"]
    assert len(mmlu.per_row) == 3
    assert set(mmlu.per_row) <= {0.0, 100.0}
    assert mmlu.value == pytest.approx(sum(mmlu.known) / 3)
    assert "3 questions" in mmlu.note
    spread = math.sqrt(sum((v - mmlu.value) ** 2 for v in mmlu.known) / 2 / 3)
    assert mmlu.high == pytest.approx(min(100.0, mmlu.value + 1.959964 * spread))
    assert values["ability/mean"].value == pytest.approx((mmlu.value + values["ability/arc_challenge"].value) / 2)
    assert "the paper's is of mmlu, arc_challenge, truthfulqa_mc2" in values["ability/mean"].note

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("forwarded")

    monkeypatch.setattr(scoring, "_scored", never)
    assert measure_ability(Engine(model, tokenizer), settings, cache=AnswerCache(tmp_path / "cache", model)) == values
    limited = settings.model_copy(update={"limit": 1})
    assert (
        "limited to the first 1"
        in measure_ability(Engine(model, tokenizer), limited, cache=AnswerCache(tmp_path / "cache", model))[
            "ability/mmlu"
        ].note
    )


def test_an_article_of_wikitext_has_its_heading_and_sections(folder: Path) -> None:
    pages = [one["page"] for one in documents("wikitext", folder)]
    assert [page.split("\n")[0] for page in pages] == [" = Ada Quill = ", " = Rook = "]
    assert " = = Life = = " in pages[0]


def test_word_perplexity_by_hand() -> None:
    """Two texts of 2 and 3 words with log P -2 and -6: exp(8/5); residuals -1.2 and 1.2 give half a width of 1.96 · 2.4 / 5."""
    found = perplexity([(-2.0, 2), (-6.0, 3)])
    assert found.value == pytest.approx(math.exp(1.6))
    assert found.per_row == pytest.approx((math.e, math.exp(2.0)))
    half = 1.959964 * math.sqrt(2 / 1 * 2 * 1.2**2) / 5
    assert (found.low, found.high) == pytest.approx((math.exp(1.6 - half), math.exp(1.6 + half)))
    broken = perplexity([(-2.0, 2), (math.nan, 3)])
    assert broken.value == pytest.approx(math.e)
    assert broken.skipped == ("1 of 2 texts: the score is not finite",)
    collapsed = perplexity([(-2.0, 2), (-1e6, 3)])  # too large for a number, and nothing is left out
    assert (collapsed.value, collapsed.skipped) == (None, ())


def test_perplexity_is_no_part_of_the_mean(tiny: Any, folder: Path) -> None:
    settings = AbilitySection(tasks=("race", "wikitext"), path=str(folder))
    found = measure_ability(Engine(*tiny), settings)
    assert found["ability/mean"].value == found["ability/race"].value
    assert found["word_perplexity/wikitext"].value is not None
    column = columns_of(found, {})["word_perplexity/wikitext"]
    assert (column.better, column.headline, column.label) == ("lower", True, "Word perplexity wikitext")
    one = measure_ability(Engine(*tiny), settings.model_copy(update={"limit": {"wikitext": 1}}))[
        "word_perplexity/wikitext"
    ]
    assert one.per_row == pytest.approx(found["word_perplexity/wikitext"].per_row[:1])
    assert one.note == "1 text; limited to the first 1"
    alone = measure_ability(Engine(*tiny), AbilitySection(tasks=("wikitext",), path=str(folder)))
    assert set(alone) == {"word_perplexity/wikitext"}


def test_it_is_part_of_an_evaluation(tiny: Any, folder: Path, forget: Any, retain: Any) -> None:
    model, tokenizer = tiny
    settings = {
        "metrics": ("unlearn_success",),
        "direct_splits": (),
        "ability": {"tasks": ("race",), "path": str(folder)},
    }
    found = evaluate(model, tokenizer, forget=forget, retain=retain, max_length=400, **settings).document()
    assert found["ability/race"]["value"] in (0.0, 100.0)
    assert found["ability/race"]["better"] == "higher"
    assert found["ability/race"]["low"] is None  # one question has no spread
