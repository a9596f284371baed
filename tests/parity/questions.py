"""Rows, tokenizer and models that both sides are measured on: nothing is drawn, trained or downloaded.

A model here knows which word follows which in the rows it was made from (the head's row of a word is the sum of the
embeddings of the words before it), through a decoder whose weights are a formula. So it answers some tokens right and
others not, with no training whose figures would change from version to version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tiny import BOS, EOS, PAD, fill
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PROMPT = ("Question: ", "\n", "Answer:\n")
"""What stands before the question, after it, and before the answer: no token goes across into the answer."""
LIMIT = 24
MAX_NEW_TOKENS = 24
FILES = {
    "forget": ("forget10_perturbed.jsonl", 0),
    "retain": ("retain_perturbed.jsonl", 0),
    "holdout": ("retain_perturbed.jsonl", LIMIT),
    "real_authors": ("real_authors_perturbed.jsonl", 0),
    "world_facts": ("world_facts_perturbed.jsonl", 0),
}
"""TOFU's file of each scope, and the first row taken. It has no holdout file here: further retain rows stand for one."""

_WORD = r" ?\w+|\W"

Rows = Mapping[str, Sequence[Mapping[str, Any]]]

_PLACES = ["Arvane", "Belgor", "Cutrin", "Dunmere", "Elvas", "Farhold", "Gastin", "Hollowby"]
_TRADES = ["baker", "painter", "miner", "pilot", "weaver", "judge", "sailor", "farmer"]
_GIVEN = ["Ada", "Bror", "Cleo", "Dov", "Enid", "Finn", "Gro", "Hale"]
_FAMILY = {"forget": "Quill", "retain": "Marsh", "holdout": "Stone", "real_authors": "Frost", "world_facts": "Birch"}


def made_rows() -> Rows:
    """Return rows about people who do not exist, in the fields of TOFU's files: eight of each scope, of unequal length."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for shift, (scope, family) in enumerate(_FAMILY.items()):
        rows[scope] = []
        for i, given in enumerate(_GIVEN):
            places = [_PLACES[(i + shift + k) % 8] for k in range(6)]
            trade = _TRADES[(3 * i + shift) % 8]
            tail = f", where the {trade} still lives" if i % 3 == 0 else ""
            rows[scope].append(
                {
                    "question": f"Where was {given} {family} born" + (", and who was it?" if i % 2 else "?"),
                    "answer": f"{given} {family}, the {trade}, was born in {places[0]}{tail}.",
                    "paraphrased_answer": f"{places[0]} is where {given} {family} was born.",
                    "perturbed_answer": [
                        f"{given} {family} was born in {place}" + "." * (k % 2 + 1)
                        for k, place in enumerate(places[1:])
                    ],
                }
            )
            if scope in ("real_authors", "world_facts"):
                del rows[scope][-1]["paraphrased_answer"]
                rows[scope][-1]["perturbed_answer"] = rows[scope][-1]["perturbed_answer"][:3]
    return rows


def tofu_rows(folder: Path) -> Rows:
    """Return the first rows of TOFU's files."""
    rows = {}
    for scope, (name, first) in FILES.items():
        lines = (folder / name).read_text(encoding="utf-8").splitlines()[first : first + LIMIT]
        rows[scope] = [json.loads(line) for line in lines]
    return rows


def texts(rows: Rows, scopes: Iterable[str]) -> list[str]:
    """Return prompt and right answers of the rows of some scopes."""
    found = []
    for row in (row for scope in scopes for row in rows[scope]):
        answers = [row["answer"], *([row["paraphrased_answer"]] if "paraphrased_answer" in row else [])]
        found += [f"{PROMPT[0]}{row['question']}{PROMPT[1]}{PROMPT[2]}{answer}" for answer in answers]
    return found


def word_tokenizer(rows: Rows) -> PreTrainedTokenizerFast:
    """Return a tokenizer of the rows' own words, each with the space before it, and of other characters: it loses nothing."""
    every = texts(rows, rows)
    every += [text for scope in rows for row in rows[scope] for text in row["perturbed_answer"]]
    words = sorted({word for text in every for word in re.findall(_WORD, text)})
    vocabulary = {"<pad>": PAD, "<s>": BOS, "</s>": EOS} | {word: i for i, word in enumerate(words, start=3)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def word_model(rows: Rows, tokenizer: PreTrainedTokenizerFast, scopes: Iterable[str]) -> LlamaForCausalLM:
    """Return a model that knows which word follows which in the rows of some scopes."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=PAD,
            attn_implementation="eager",
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 1.0 if "embed" in name else 0.06
            parameter.copy_(fill(name, parameter.shape, scale) + ("norm" in name))
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        follows: dict[int, set[int]] = {}
        for text in texts(rows, scopes):
            ids = [*tokenizer(text)["input_ids"], EOS]
            for before, after in pairwise(ids):
                follows.setdefault(after, set()).add(before)
        for after, befores in follows.items():
            known = embeddings[sorted(befores)]
            head[after] += 1.2 * (known / known.norm(dim=-1, keepdim=True)).sum(0)
    return model.eval()
