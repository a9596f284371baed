"""Model folders: configs, weights and tokenizers that do not belong together, or are none."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ..inputs import Content, Family, Gone, Input
from ..text import any_of, broken_bytes, broken_json, to_json

READ_MODEL = (
    ("evaluate", "model", "run.yaml"),
    ("unlearn", "run.yaml", "--model", "model"),
    ("localize", "run.yaml", "--model", "model"),
    ("finetune", "run.yaml", "--set", "model.path=model"),
    ("attack", "runs/done", "--target", "model", "--overwrite"),
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 12345\n"

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_SIZES = (*_SIZES, "num_key_value_heads", "head_dim")
_NUMBERS = ("rms_norm_eps", "initializer_range")
_FLAGS = ("attention_bias", "mlp_bias", "tie_word_embeddings", "use_cache")


def damaged_weights(content: bytes, random: Random) -> Iterator[tuple[str, bytes]]:
    """Return bytes that are no safetensors file, by its grammar: length of the header, header, data."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = random.choice([key for key in header if key != "__metadata__"])

    def with_header(changed: Any) -> bytes:
        text = changed if isinstance(changed, bytes) else to_json(changed)
        return struct.pack("<Q", len(text)) + text + data

    def entry(**values: Any) -> bytes:
        return with_header({**header, name: {**header[name], **values}})

    begin, end = header[name]["data_offsets"]
    yield "empty", b""
    yield "a pointer of Git LFS", LFS
    yield "a web page", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "junk", random.randbytes(random.choice([7, 8, 100, 5000]))
    yield "zeros", b"\0" * len(content)
    yield "a zip archive, as of pickled weights", b"PK\x03\x04" + content[4:]
    yield "cut off in the data", content[: random.randrange(8 + length, len(content))]
    yield "cut off in the header", content[: random.randrange(1, 8 + length)]
    yield "bytes after the end", content + random.randbytes(random.choice([1, 64]))
    for number in (0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1):
        yield f"a header of {number} bytes", struct.pack("<Q", number) + content[8:]
    for what, text in any_of(broken_json)(to_json(header), random)[:8]:
        yield f"header: {what}", with_header(text)
    yield "offsets past the end", entry(data_offsets=[begin, len(data) + 64])
    yield "offsets that run backwards", entry(data_offsets=[end, begin])
    yield "offsets that overlap", entry(data_offsets=[max(0, begin - 4), end - 4] if begin else [4, end + 4])
    yield "offsets below zero", entry(data_offsets=[-4, end])
    yield "offsets that are no numbers", entry(data_offsets=random.choice([["a", "b"], [begin], None, 3]))
    yield "a dtype that is none", entry(dtype=random.choice(["F33", "float32", "", 3, None]))
    yield "a shape of another size", entry(shape=random.choice([[1], [], [10**6, 10**6], [-1], "x", None]))
    for key in ("dtype", "shape", "data_offsets"):
        yield f"no {key}", with_header({**header, name: {k: v for k, v in header[name].items() if k != key}})


def other_tensors(content: bytes, random: Random) -> Iterator[tuple[str, bytes]]:
    """Return safetensors files whose tensors are not those of the model."""
    tensors = load(content)
    name = random.choice(list(tensors))
    one = tensors[name]

    def changed(**values: Any) -> bytes:
        return save({**tensors, **values}, metadata={"format": "pt"})

    without = {key: tensor for key, tensor in tensors.items() if key != name}
    half = dict(random.sample(sorted(tensors.items()), len(tensors) // 2))
    yield "one tensor missing", save(without, metadata={"format": "pt"})
    yield "half of the tensors missing", save(half, metadata={"format": "pt"})
    yield "no tensor", save({}, metadata={"format": "pt"})
    yield "one tensor under another name", save({**without, f"other.{name}": one}, metadata={"format": "pt"})
    wider = np.concatenate([one, one], axis=random.randrange(one.ndim))
    yield "one tensor of another shape", changed(**{name: wider})
    yield "one tensor flattened twice over", changed(**{name: np.concatenate([one.reshape(-1)] * 2)})
    yield "one tensor too many", changed(**{"model.layers.7.mlp.up_proj.weight": np.ones((3, 3), np.float32)})
    for what, value in (("NaN", np.nan), ("infinite", np.inf)):
        yield f"weights that are {what}", changed(**{name: np.full_like(one, value)})


def _config(ground: Path, random: Random) -> Iterator[Input]:
    good = json.loads((ground / "model/config.json").read_text())
    text = (ground / "model/config.json").read_bytes()
    while True:
        for key in (key for key in _SIZES if key in good):
            number = good[key]
            value = random.choice(
                [0, -1, number + 1, 2 * number, -number, 1000, 2**70, f"{number}x", None, [number], 1.5]
            )
            if (key, value) in (("head_dim", None), ("num_key_value_heads", None)):  # computed where they are left out
                continue
            yield _model(
                f"config: {key} is {value!r:.20}", {"model/config.json": to_json({**good, key: value})}, random
            )
        for key in (key for key in _NUMBERS if key in good):
            value = random.choice(["x", None, [1], {}, -1, -1.5, float("nan")])
            yield _model(f"config: {key} is {value!r}", {"model/config.json": to_json({**good, key: value})}, random)
        for key in (key for key in _FLAGS if key in good):
            value = random.choice(["perhaps", [1], {"a": 1}, 7])
            yield _model(f"config: {key} is {value!r}", {"model/config.json": to_json({**good, key: value})}, random)
        for key, values in {
            "model_type": ["llamaa", "", None, 3, "bert", "t5", "../llama"],
            "hidden_act": ["siluu", None, 3, ""],
            "dtype": ["float33", 3, "int8", "complex64"],
            "rope_parameters": [
                "x",
                3,
                {"rope_type": "nonsense"},
                {"rope_theta": "x"},
            ],
            "quantization_config": [3, "x"],  # of methods that it does not know the library warns, and goes on
        }.items():
            value = random.choice(values)
            yield _model(f"config: {key} is {value!r}", {"model/config.json": to_json({**good, key: value})}, random)
        for what, damaged in any_of(broken_json)(text, random)[:6]:
            if "the value" in what:  # the library writes Infinity itself, in configs of Mamba
                continue
            yield _model(f"config: {what}", {"model/config.json": damaged}, random)
        yield _model("no config", {"model/config.json": Gone()}, random)


def _weights(ground: Path, random: Random) -> Iterator[Input]:
    content = (ground / "model/model.safetensors").read_bytes()
    while True:
        for what, damaged in [*damaged_weights(content, random), *other_tensors(content, random)]:
            yield _model(f"weights: {what}", {"model/model.safetensors": damaged}, random)
        yield _model("no weights", {"model/model.safetensors": Gone()}, random)
        pickled: dict[str, Content] = {"model/model.safetensors": Gone(), "model/pytorch_model.bin": b"\x80\x04N."}
        yield _model("pickled weights alone", pickled, random)
        for index in (
            {"metadata": {}, "weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}},
            {"metadata": {}, "weight_map": {"lm_head.weight": "../../rows.jsonl"}},
            {"metadata": {}, "weight_map": random.choice([[], 3, None, {}])},
            random.choice([[], {}, {"weight_map": {"a": 3}}]),
        ):
            files: dict[str, Content] = {"model/model.safetensors": Gone()}
            files["model/model.safetensors.index.json"] = to_json(index)
            yield _model(f"an index of files that are not there: {index!r:.50}", files, random)


def _tokenizer(ground: Path, random: Random) -> Iterator[Input]:
    text = (ground / "model/tokenizer.json").read_bytes()
    good = json.loads(text)
    settings = json.loads((ground / "model/tokenizer_config.json").read_text())
    chat = ("--set", "data.prompt=chat")
    while True:
        for what, damaged in any_of(broken_json)(text, random)[:5]:
            yield _model(f"tokenizer.json: {what}", {"model/tokenizer.json": damaged}, random)
        for key in ("model", "pre_tokenizer", "decoder", "added_tokens", "version"):
            value = random.choice([3, "x", [3], {"type": "Nonsense"}])
            if key in good and not (key == "version" and value == "x"):
                yield _model(
                    f"tokenizer.json: {key} is {value!r}",
                    {"model/tokenizer.json": to_json({**good, key: value})},
                    random,
                )
        vocabulary = dict(good["model"]["vocab"])
        vocabulary |= {f"more{i}": len(vocabulary) + 50 + i for i in range(5)}
        grown = {**good, "model": {**good["model"], "vocab": vocabulary}}
        grown["added_tokens"] = [
            *good["added_tokens"],
            {**good["added_tokens"][0], "id": 5000, "content": " lives"},
        ]
        yield _model("more tokens than the model has", {"model/tokenizer.json": to_json(grown)}, random)
        for key, value in (
            ("vocab", random.choice([{}, [], {"a": "x"}, {"a": -1}])),
            ("merges", random.choice([[["q", "@"]], 3])),
        ):
            changed = {**good, "model": {**good["model"], key: value}}
            yield _model(f"tokenizer.json: {key} is {value!r}", {"model/tokenizer.json": to_json(changed)}, random)
        for what, damaged in any_of(broken_json)(to_json(settings), random)[:4]:
            if "the value" in what:  # which the library's reader takes, in a key that nobody reads
                continue
            yield _model(f"tokenizer_config.json: {what}", {"model/tokenizer_config.json": damaged}, random)
        yield _model("no tokenizer", {"model/tokenizer.json": Gone(), "model/tokenizer_config.json": Gone()}, random)
        for template in (
            "{{ raise_exception('no such turn') }}",
            "{% for m in messages %}{{ m['content'] }",
            "{{ messages[7]['content'] }}",
            "{{ undefined_function(messages) }}",
            "{% include 'other' %}",
            "{{ 1 / 0 }}",
            "{{ ''.__class__.__mro__ }}",
            "no question in it",
            "",
        ):
            files: dict[str, Content] = {"model/chat_template.jinja": template.encode()}
            yield _model(f"chat template {template!r}", files, random, chat)
        name = random.choice([3, ["x"]])
        yield _model(
            f"tokenizer class {name!r}",
            {"model/tokenizer_config.json": to_json({**settings, "tokenizer_class": name})},
            random,
        )
        for what, damaged in any_of(broken_bytes)(b"{{ messages }}", random)[:2]:
            yield _model(f"chat_template.jinja: {what}", {"model/chat_template.jinja": damaged}, random, chat)


def _model(what: str, files: dict[str, Content], random: Random, more: tuple[str, ...] = ()) -> Input:
    command = random.choice(READ_MODEL[:2] * 2 + READ_MODEL[: 4 if more else 5])
    return Input(what, (*command, *more), files)


FAMILIES = (
    Family("config.json", _config, READ_MODEL),
    Family("weights", _weights, READ_MODEL[:1]),
    Family("tokenizer", _tokenizer, READ_MODEL[:1]),
)
