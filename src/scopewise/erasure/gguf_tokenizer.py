"""The fields of a GGUF file that describe the tokenizer, from a fast tokenizer of transformers."""

from __future__ import annotations

import json
import re
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from scopewise.errors import ModelError

_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE, _NORMAL = 2, 3, 4, 5, 6, 1


def tokenizer_fields(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[tuple[str, Any]]:
    """Return which methods of `gguf.GGUFWriter` to call with which value, to describe a tokenizer.

    A byte-level BPE is llama.cpp's `gpt2`, with the name it has for how the text is split; a BPE with byte fallback and ▁
    for spaces is its `llama`, which merges by scores: a token's score is minus the rank of the merge that makes it.

    Args:
        tokenizer: Of the model.
        config: Of the model: ids up to its vocabulary's size that the tokenizer does not have are marked as unused.

    Raises:
        ModelError: another kind of tokenizer.
    """
    if not tokenizer.is_fast:
        raise _unsupported("a tokenizer without tokenizer.json")
    about = json.loads(tokenizer.backend_tokenizer.to_str())  # type: ignore[attr-defined]
    model, scores = about["model"], None
    if model["type"] != "BPE":
        raise _unsupported(f"tokenizer of type {model['type']}")
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    tokens, types = _tokens(about, config.get_text_config().vocab_size)
    fields: list[tuple[str, Any]] = []
    if _sentencepiece_like(about):
        ranks = {left + right: rank for rank, (left, right) in reversed(list(enumerate(merges)))}
        scores = [-float(ranks.get(token, len(merges))) for token in tokens]
        fields += [("add_tokenizer_model", "llama"), ("add_tokenizer_pre", "default")]
    else:
        fields += [("add_tokenizer_model", "gpt2"), ("add_tokenizer_pre", _split_name(about))]
    fields += [("add_token_list", tokens), ("add_token_types", types)]
    if scores is None:
        fields.append(("add_token_merges", [f"{left} {right}" for left, right in merges]))
    else:
        fields += [("add_token_scores", scores), ("add_add_space_prefix", tokenizer.tokenize("a")[0].startswith("▁"))]
    ids = tokenizer("a").input_ids
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    fields += [("add_add_bos_token", bos is not None and ids[0] == bos)]
    fields += [("add_add_eos_token", eos is not None and ids[-1] == eos)]
    special = {"bos": bos, "eos": eos, "unk": tokenizer.unk_token_id, "pad": tokenizer.pad_token_id}
    fields += [(f"add_{name}_token_id", number) for name, number in special.items() if number is not None]
    if tokenizer.chat_template:
        fields.append(("add_chat_template", tokenizer.chat_template))
    return fields


def _unsupported(what: str) -> ModelError:
    return ModelError(
        f"gguf: {what}; not written here; convert the exported folder with llama.cpp's convert_hf_to_gguf.py"
    )


def _tokens(about: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Return the text and the llama.cpp type of each id."""
    vocabulary = {number: token for token, number in about["model"]["vocab"].items()}
    unknown, byte_fallback = about["model"].get("unk_token"), about["model"].get("byte_fallback")
    types = dict.fromkeys(vocabulary, _NORMAL)
    for number, token in vocabulary.items():
        if byte_fallback and re.fullmatch("<0x[0-9A-F]{2}>", token):
            types[number] = _BYTE
    for added in about["added_tokens"]:
        vocabulary[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
        if byte_fallback and added["content"] == unknown:
            types[added["id"]] = _UNKNOWN
    count = max(size, max(vocabulary) + 1)
    return [vocabulary.get(i, f"[PAD{i}]") for i in range(count)], [types.get(i, _UNUSED) for i in range(count)]


def _sentencepiece_like(about: dict[str, Any]) -> bool:
    """Return whether spaces become ▁ and unknown characters bytes."""
    return bool(about["model"].get("byte_fallback")) and "▁" in json.dumps(
        [about["normalizer"], about["pre_tokenizer"]], ensure_ascii=False
    )


def _split_name(about: dict[str, Any]) -> str:
    """Return llama.cpp's name for how a byte-level BPE splits text before merging.

    Raises:
        ModelError: it has none that we know.
    """
    before = about["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    kinds = [step.get("type") for step in steps]
    plain = about["normalizer"] is None and not any(step.get("add_prefix_space") for step in steps)
    if plain and kinds == ["ByteLevel"] and steps[0].get("use_regex"):
        return "gpt-2"
    if plain and kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex"):
        return "smollm"
    if plain and kinds == ["Split", "ByteLevel"] and steps[0]["pattern"].get("Regex") == _LLAMA_3:
        return "llama-bpe"
    raise _unsupported("a tokenizer that splits text in another way than GPT-2, SmolLM and Llama 3 do")
