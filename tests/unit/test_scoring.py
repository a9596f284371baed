"""The one pass: every pair once, prompts shared, batches that do not matter, and a cache that forwards nothing twice."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file, save
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from engines import forward_of
from scopewise.data.prompt import encode
from scopewise.errors import ModelError, ResultError
from scopewise.models import score as scoring
from scopewise.models.cache import AnswerCache, content_hash
from scopewise.models.engine import Engine
from scopewise.models.generate import generate
from scopewise.models.score import Pair, score_pairs


@pytest.fixture
def pairs(encoded: Any) -> list[Pair]:
    """Sixteen rows, and three other answers to each of the first four prompts."""
    items = [*encoded[0], *encoded[1]]
    others = [(items[i].prompt_ids, items[j].answer_ids) for i in range(4) for j in range(8, 11)]
    return [*(item.pair for item in items), *others]


def plain(model: Any, pair: Pair) -> dict[str, list[float]]:
    """By the model's own forward, alone, over the whole vocabulary."""
    prompt, answer = pair
    with torch.no_grad():
        log_p = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
    p = log_p.exp()
    mean = (p * log_p).sum(-1)
    return {
        "log_probs": log_p[torch.arange(len(answer)), list(answer)].tolist(),
        "predicted_ids": log_p.argmax(-1).tolist(),
        "means": mean.tolist(),
        "variances": (p * (log_p - mean[:, None]) ** 2).sum(-1).tolist(),
    }


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("max_tokens", [1, 200, 10000])
def test_scores_are_those_of_a_plain_forward(share: bool, max_tokens: int, tiny: Any, pairs: list[Pair]) -> None:
    model = tiny[0]
    assert forward_of(model).abilities.shares_prompts
    for pair, got in zip(pairs, score_pairs(forward_of(model), pairs, max_tokens, share_prompts=share), strict=True):
        want = plain(model, pair)
        for name in ("log_probs", "means", "variances"):
            assert getattr(got, name) == pytest.approx(want[name], rel=1e-4, abs=1e-4)
        assert list(got.predicted_ids) == want["predicted_ids"]
        assert list(got.hits) == [a == b for a, b in zip(want["predicted_ids"], pair[1], strict=True)]


def test_each_unique_pair_and_prompt_is_forwarded_once(tiny: Any, pairs: list[Pair], monkeypatch: Any) -> None:
    model = tiny[0]
    assert forward_of(model).abilities.shares_prompts
    tokens = []
    real = scoring.collate_units
    monkeypatch.setattr(scoring, "collate_units", lambda units: tokens.append(sum(map(len, units))) or real(units))
    score_pairs(forward_of(model), pairs * 2)
    prompts = {prompt for prompt, _ in pairs}
    begun = {(prompt, answer[:end]) for prompt, answer in pairs for end in range(1, len(answer))}
    assert sum(tokens) == sum(map(len, prompts)) + len(begun)


def test_answers_of_one_token_cost_no_token(tiny: Any, pairs: list[Pair], monkeypatch: Any) -> None:
    """A multiple-choice question with one letter for each choice is forwarded as its prompt, under the usual mask."""
    model = tiny[0]
    prompt = pairs[0][0]
    choices: list[Pair] = [(prompt, (i,)) for i in (5, 6, 7)]
    masks = []
    real = scoring.collate_units
    monkeypatch.setattr(scoring, "collate_units", lambda units: masks.append(real(units)) or masks[-1])
    assert forward_of(model).abilities.shares_prompts
    del masks[:]
    for pair, got in zip(choices, score_pairs(forward_of(model), choices), strict=True):
        assert got.log_probs == pytest.approx(plain(model, pair)["log_probs"], abs=1e-4)
    (batch,) = masks
    assert tuple(batch["input_ids"].shape) == (1, len(prompt))
    assert batch["attention_mask"].dim() == 2


def test_a_model_whose_attention_has_a_window_does_not_share() -> None:
    """Its answers would see each other through the window's own mask, or miss the prompt: they go one by one."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    pairs: list[Pair] = [((5, 6, 7, 8, 9, 10, 11), (12, 13, 14)), ((5, 6, 7, 8, 9, 10, 11), (15, 16))]
    for pair, got in zip(pairs, score_pairs(forward_of(model), pairs), strict=True):
        assert got.log_probs == pytest.approx(plain(model, pair)["log_probs"], abs=1e-4)


def test_padding_has_no_place_that_a_model_may_lack() -> None:
    """GPT-2 with 20 learned positions: four answers that share a prompt stand in 44 tokens, beside a shorter row."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 300, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 20}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()
    pairs: list[Pair] = [(tuple(range(10, 18)), tuple(range(first, first + 10))) for first in (20, 40, 60, 80)]
    pairs += [((5, 6), (7, 8)), ((5, 6), (8, 9))]
    assert forward_of(model).abilities.shares_prompts
    for pair, got in zip(pairs, score_pairs(forward_of(model), pairs), strict=True):
        assert list(got.log_probs) == pytest.approx(plain(model, pair)["log_probs"], abs=1e-4)


def test_what_does_not_fit_is_halved(tiny: Any, pairs: list[Pair], monkeypatch: Any) -> None:
    """Batches of more than three rows run out of memory: the scores are the same; one row alone that does is an error."""
    model = tiny[0]
    want = score_pairs(forward_of(model), pairs)
    real, limit = scoring._scored, 3
    tried = []

    def small(model: Any, units: Any, moments: bool) -> Any:
        tried.append(len(units))
        if len(units) > limit:
            raise torch.OutOfMemoryError
        return real(model, units, moments)

    monkeypatch.setattr(scoring, "_scored", small)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    for a, b in zip(score_pairs(forward_of(model), pairs, share_prompts=False), want, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
    assert max(tried) > limit
    limit = 0
    with pytest.raises(ModelError, match="evaluate: .* sequence "):
        score_pairs(forward_of(model), pairs, share_prompts=False)


def test_not_a_number_is_an_error(tiny: Any, pairs: list[Pair]) -> None:
    model = tiny[0]
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelError, match="a logit is not a number"):
        score_pairs(forward_of(model), pairs)


def test_moments_are_made_where_they_are_asked_for(tiny: Any, pairs: list[Pair], tmp_path: Path) -> None:
    """What is kept without them is scored again for a measure that needs them, and the rest is the same."""
    cache = AnswerCache(tmp_path, tiny[0])
    plain = score_pairs(forward_of(tiny[0]), pairs, moments=False)
    cache.add_scores(pairs, plain)
    assert cache.missing(pairs) == []
    assert cache.missing(pairs, moments=True) == [pair for pair in dict.fromkeys(pairs) if pair[1]]
    full = score_pairs(forward_of(tiny[0]), pairs)
    for a, b in zip(plain, full, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-6)
        assert (a.hits, a.predicted_ids) == (b.hits, b.predicted_ids)
        assert all(math.isnan(m) for m in (*a.means, *a.variances))
        assert not any(math.isnan(m) for m in (*b.means, *b.variances))
    cache.add_scores(pairs, full)
    assert AnswerCache(tmp_path, tiny[0]).missing(pairs, moments=True) == []


def test_cache_gives_back_what_it_was_given(tiny: Any, pairs: list[Pair], tmp_path: Path) -> None:
    model = tiny[0]
    scored = score_pairs(forward_of(model), pairs[:10])
    AnswerCache(tmp_path, model).add_scores(pairs[:10], scored)
    again = AnswerCache(tmp_path, model)
    assert again.missing(pairs) == list(dict.fromkeys(pairs[10:]))
    assert again.scores(pairs[:10]) == scored
    again.add_scores(pairs[10:], score_pairs(forward_of(model), pairs[10:]))
    again.add_texts([pairs[0][0]], ("greedy", 4), [["héllo\n"]])
    third = AnswerCache(tmp_path, model)
    assert third.missing(pairs) == []
    assert third.texts([pairs[0][0], pairs[1][0]], ("greedy", 4)) == [["héllo\n"], None]
    assert third.texts([pairs[0][0]], ("greedy", 5)) == [None]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight[0] += 1e-3
    assert content_hash(other) != content_hash(model) == content_hash(copy.deepcopy(model))
    assert AnswerCache(tmp_path, other).missing(pairs[:1]) == pairs[:1]


def test_a_cache_that_was_damaged_is_refused(tiny: Any, pairs: list[Pair], tmp_path: Path) -> None:
    model = tiny[0]
    cache = AnswerCache(tmp_path, model)
    cache.add_scores(pairs[:3], score_pairs(forward_of(model), pairs[:3]))
    cache.add_texts([(1, 2)], ("greedy", 4), [["a"]])
    (scores,), (texts,) = tmp_path.glob("*.safetensors"), tmp_path.glob("*.json")
    content, columns = scores.read_bytes(), load_file(scores)
    damaged = [b"", content[:-1], save({k: v for k, v in columns.items() if k != "hits"})]
    damaged += [save({**columns, "hits": columns["hits"][1:]}), save({**columns, "length": -columns["length"]})]
    damaged += [
        save({**columns, "key": columns["key"][1:]}),
        save({**columns, "means": columns["means"].astype("int8")}),
    ]
    for wrong in damaged:
        scores.write_bytes(wrong)
        with pytest.raises(ResultError, match=scores.name):
            AnswerCache(tmp_path, model)
    scores.write_bytes(content)
    for text in ("[]", '{"a": 1}', '{"a": []}', '{"a": [1]}', "{"):
        texts.write_text(text)
        with pytest.raises(ResultError, match=texts.name):
            AnswerCache(tmp_path, model)


# Generation


def by_the_library(model: Any, tokenizer: Any, prompt: tuple[int, ...], new: int) -> str:
    config = GenerationConfig(do_sample=False, max_new_tokens=new, pad_token_id=0, eos_token_id=tokenizer.eos_token_id)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), generation_config=config
        )
    ids = [i for i in out[0, len(prompt) :].tolist() if i != tokenizer.eos_token_id]
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


@pytest.mark.parametrize("max_tokens", [1, 300, 10000])
def test_greedy_is_that_of_the_library(max_tokens: int, tiny: Any, encoded: Any, monkeypatch: Any) -> None:
    """Row by row, with another end of sequence, so that rows stop at different places and are dropped."""
    model, tokenizer = tiny
    items = [*encoded[0], *encoded[1]]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(_frequent(model, items))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    got = generate(forward_of(model), tokenizer, [item.prompt_ids for item in items], 12, max_tokens)
    want = [by_the_library(model, tokenizer, item.prompt_ids, 12) for item in items]
    assert [text for (text,) in got] == want
    assert len({len(text) for text in want}) > 2


def _frequent(model: Any, items: Any) -> int:
    """A token that the model writes now and then."""
    with torch.no_grad():
        found = [int(model(torch.tensor([item.prompt_ids + item.answer_ids])).logits[0, -3].argmax()) for item in items]
    return max(set(found), key=found.count)


def test_samples_depend_on_seed_and_prompt_alone(tiny: Any, encoded: Any) -> None:
    """Not on the batch, nor on torch's generators, which stay as they were."""
    model, tokenizer = tiny
    prompts = [item.prompt_ids for item in encoded[0]]
    state = torch.random.get_rng_state()
    together = generate(forward_of(model), tokenizer, prompts, 6, temperature=1.0, samples=3, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    assert [
        generate(forward_of(model), tokenizer, [p], 6, temperature=1.0, samples=3, seed=1)[0] for p in prompts
    ] == together
    assert generate(forward_of(model), tokenizer, prompts, 6, temperature=1.0, samples=3, seed=2) != together
    assert all(len(set(texts)) > 1 for texts in together)


def test_sampling_follows_the_distribution(tiny: Any) -> None:
    """Two thousand draws of one next token, against its probabilities: total variation below .1."""
    model, tokenizer = tiny
    prompt = tuple(tokenizer("Where does")["input_ids"])
    model.lm_head.weight.data *= 3  # few likely tokens
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    texts = generate(
        forward_of(model), tokenizer, [prompt], 1, temperature=1.0, samples=2000, seed=0, max_tokens=10**6
    )[0]
    names = [tokenizer.decode([i], skip_special_tokens=True).strip() for i in range(len(p))]
    want: dict[str, float] = {}
    for name, share in zip(names, p.tolist(), strict=True):
        want[name] = want.get(name, 0.0) + share
    distance = 0.5 * sum(abs(want[name] - texts.count(name) / 2000) for name in want)
    assert distance < 0.1


def test_a_model_that_never_stops_is_stopped(tiny: Any, encoded: Any) -> None:
    model, tokenizer = tiny
    model.generation_config.eos_token_id = None
    texts = [text for (text,) in generate(forward_of(model), tokenizer, [item.prompt_ids for item in encoded[0]], 5)]
    whole = [text for text in texts if "\ufffd" not in text]  # bytes that are no letters become three each
    assert whole
    assert all(len(tokenizer(text)["input_ids"]) <= 8 for text in whole)


def test_evaluation_from_a_cache_forwards_nothing(
    tiny: Any, benchmark_rows: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """The same numbers, with a model that could not be forwarded any more; another metric costs no forward either."""
    from scopewise.api import evaluate
    from scopewise.data.rows import FORGET, RETAIN

    model, tokenizer = tiny
    rows = {s: [r for r in benchmark_rows if r.scope == s][:4] for s in (FORGET, RETAIN)}
    settings = {"direct_splits": (), "max_new_tokens": 4, "cache": tmp_path, "max_length": 400}
    first = evaluate(model, tokenizer, forget=rows[FORGET], retain=rows[RETAIN], **settings)
    assert len(encode(rows[FORGET], tokenizer, max_length=400)) == 4

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("forwarded")

    monkeypatch.setattr(Engine, "score", never)
    monkeypatch.setattr(Engine, "generate", never)
    again = evaluate(model, tokenizer, forget=rows[FORGET], retain=rows[RETAIN], **settings)
    assert again.values == first.values
    other = evaluate(
        model,
        tokenizer,
        forget=rows[FORGET],
        retain=rows[RETAIN],
        metrics=("probability", "extraction_strength"),
        **settings,
    )
    assert set(other.metrics) >= {"probability/forget_train", "extraction_strength/retain_train"}
