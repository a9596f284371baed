"""Export a model: one folder that plain transformers loads, with a model card, checked by reading it back."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from scopewise.config import DataSection, ModelSection
from scopewise.erasure.evidence import digest_folder
from scopewise.erasure.gguf_file import GGUF_TYPES, check_gguf, check_written, read_gguf, write_gguf
from scopewise.erasure.model_card import Card, model_card
from scopewise.errors import ConfigError, ModelError, ResultError
from scopewise.files import check_writable, flush, make_folder, no_room, remove, seal, write_text, writing
from scopewise.models.architecture import is_quantized
from scopewise.models.checked import first_line
from scopewise.models.engine import Engine
from scopewise.models.load import load_model, save_model
from scopewise.models.merging import merged
from scopewise.models.parallel.fsdp import is_sharded

REQUESTS = "scopewise_requests"
"""Field of an exported `config.json`: the ids of the requests that the model was unlearned for, the first one first."""
_BESIDE_WEIGHTS = 64 * 2**20
"""Bytes for tokenizer, configurations and model card."""
_CARD = "README.md"


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        folder: Where it lies.
        files: Name → SHA-256 (hexadecimal) of each of its files.
        errors: Type → root mean square of a GGUF file's rounding errors, as a share of that of the weights.
    """

    folder: Path
    files: dict[str, str]
    errors: dict[str, float]


def check_room(
    model: Any,
    folder: str | Path,
    gguf: Sequence[str] = (),
    tokenizer: PreTrainedTokenizerBase | None = None,
    request: str | None = None,
) -> int:
    """Check that a model can be exported to a folder. Call this before training; nothing is written.

    Args:
        model: That will be exported, with or without adapter; on the meta device as well.
        folder: To write; it must not exist.
        gguf: Types of GGUF files to write beside the weights, of `GGUF_TYPES`.
        tokenizer: Of the model; needed for GGUF files.
        request: Id of the request; None: earlier ones are not looked at.

    Returns:
        The bytes that the export needs.

    Raises:
        ResultError: the folder exists, cannot be written, or has too little room.
        ModelError: the model is an export of the same request, sharded or in 4 bits, or cannot be written as GGUF.
        ConfigError: an unknown GGUF type, or one whose package or tool is not installed.
    """
    folder = Path(folder)
    with writing(folder, "export"):
        if os.path.lexists(folder):
            raise ResultError(f"export: {folder} exists; name a new folder, or remove it")
    check_writable(folder, "export")
    if request is not None and request in requests_of(model):
        raise ModelError(
            f"model: already an export of request {request}; nothing is left to remove; give the model before it, or "
            "another request"
        )
    if is_sharded(model):
        raise ModelError("export: a model that is sharded over processes; load it in one process and export that")
    if is_quantized(model):
        raise ModelError(
            "export: weights in 4 bits; load the model with dequantized=True, or set model.quantization=none"
        )
    if gguf and tokenizer is not None:
        check_gguf(model.config, tokenizer, gguf)
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    own = dict(base.named_parameters(remove_duplicate=not isinstance(model, PeftModel)))  # an adapter may untie them
    weights = [p for name, p in own.items() if ".lora_" not in name]
    count = sum(p.numel() for p in weights)
    need = sum(p.numel() * p.element_size() for p in weights) + _BESIDE_WEIGHTS
    need += int(sum(count * GGUF_TYPES[kind] for kind in {*gguf, *(["f16"] if "q4_k_m" in gguf else [])}))
    above = next(place for place in folder.absolute().parents if place.exists())
    if need > (free := shutil.disk_usage(above).free):
        raise ResultError(
            f"export: {folder}; needs {need / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free; make room, or name a folder "
            "on another disk"
        )
    return need


def requests_of(model: Any) -> list[str]:
    """Return the ids of the requests that a model was exported for, the first one first."""
    return list(getattr(getattr(model, "config", None), REQUESTS, None) or [])


def export(
    engine: Engine, folder: str | Path, card: Card, gguf: Sequence[str] = (), private: Iterable[str] = ()
) -> Exported:
    """Write a model as a folder that appears as a whole or not at all, and check it by reading it back.

    It holds the weights in safetensors with any adapter merged, the tokenizer with its chat template, the generation
    configuration, a model card and, if asked for, GGUF files. `config.json` keeps the request's id.

    Args:
        engine: Of the model. An adapter is merged into its weights, so use the reloaded one afterwards.
        folder: To write; it must not exist.
        card: What the model card says.
        gguf: Types of GGUF files, of `GGUF_TYPES`.
        private: Texts that the model card must not contain, such as forget answers; as in `model_card`.

    Raises:
        UserError: as `check_room`, `model_card` and `check_written`.
        ResultError: the weights that were read back differ, or the disk is full.
    """
    folder, model, tokenizer = Path(folder), engine.model, engine.tokenizer
    check_room(model, folder, gguf, tokenizer, card.request)
    text = str(model_card(card, private))
    whole: Any = merged(model) if isinstance(model, PeftModel) else model
    setattr(whole.config, REQUESTS, [*requests_of(whole), card.request])
    whole.config.name_or_path = ""  # it may be a path of this machine
    make_folder(folder.absolute().parent, "export")
    work = folder.with_name(f".{folder.name[:24]}.{secrets.token_hex(8)}.tmp")
    errors = {}
    try:
        with _disk(folder):
            make_folder(work, "export")
            save_model(whole, tokenizer, work)
            _check_weights(whole, work)
            for kind in gguf:
                write_gguf(work, kind, work / gguf_name(kind))
                errors[kind] = check_written(work, work / gguf_name(kind), kind)
            write_text(work / _CARD, text)
            seal(work)
            files = digest_folder(work)
        with writing(folder, "export"):
            work.rename(folder)
        flush(folder.absolute().parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(work)
        raise
    return Exported(folder, files, errors)


def reload(exported: Exported, data: DataSection | None = None, gguf: str | None = None) -> Engine:
    """Load a model from its exported files, after checking that they are unchanged.

    Args:
        exported: What `export` returned.
        data: As in `Engine`.
        gguf: Type of the GGUF file to take the weights from, in float32; None: those of the safetensors files.

    Raises:
        ResultError: a file is missing or was changed.
    """
    check_files(exported)
    if gguf is None:
        return Engine.load(exported.folder, data=data, name="export")
    engine = Engine.load(exported.folder, ModelSection(dtype="float32"), data, name=f"export {gguf}")
    parameters = dict(engine.model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, values in read_gguf(exported.folder / gguf_name(gguf), engine.model.config):
            parameters[name].copy_(values)
    return engine


def check_files(exported: Exported) -> None:
    """Raise ResultError if a file of an export is missing or was changed."""
    found = digest_folder(exported.folder)
    for name, digest in exported.files.items():
        if found.get(name) != digest:
            what = "changed since it was exported" if name in found else "missing"
            raise ResultError(f"{exported.folder / name}: {what}; export the model again")


def agreement(before: Engine, after: Engine, prompts: Sequence[tuple[int, ...]], max_new_tokens: int = 32) -> float:
    """Return the share (0-1) of prompts that two engines continue with the same text, without sampling.

    It is 1 between the exported model and the reloaded one; an adapter that is merged, or a GGUF type, rounds, which may
    change a token now and then.

    Args:
        before: One engine.
        after: The other, with the same tokenizer.
        prompts: Ids of each prompt; at least one.
        max_new_tokens: Of each continuation.
    """
    first, second = (engine.generate(prompts, max_new_tokens) for engine in (before, after))
    return sum(a == b for a, b in zip(first, second, strict=True)) / len(prompts)


def gguf_name(kind: str) -> str:
    """Return the name of a GGUF file in an exported folder."""
    return f"model-{kind}.gguf"


def push_to_hub(exported: Exported, name: str, *, private: bool = True, token: str | None = None) -> str:
    """Upload an exported model to the hub, after checking that its files are unchanged.

    Args:
        exported: What `export` returned.
        name: `owner/name`; it is created where it does not exist.
        private: Whether a new one is private.
        token: Access token; None: the one that `hf auth login` stored.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: not a name of the hub.
        ResultError: a file was changed, or the hub refused or did not answer.
    """
    check_files(exported)
    api = HfApi(token=token)
    try:
        made = api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=made.repo_id,
            folder_path=exported.folder,
            allow_patterns=list(exported.files),
            commit_message="Upload",
        )
    except HFValidationError as error:
        raise ConfigError(f"push_to_hub: {name}; {first_line(error)}; give owner/name") from None
    except (OfflineModeIsEnabled, OSError) as error:
        reason = first_line(error).rstrip(".")
        raise ResultError(
            f"push_to_hub: {name}; not uploaded ({reason}); check the network and `hf auth login`"
        ) from None
    return str(done.commit_url)


def _check_weights(model: PreTrainedModel, folder: Path) -> None:
    """Raise ResultError unless a folder, loaded again, has the weights of a model bit by bit."""
    section = ModelSection()
    found = load_model(folder, section).state_dict()
    for name, value in model.state_dict().items():
        if name not in found or not torch.equal(found[name].cpu(), value.cpu()):
            raise ResultError(f"export: {name}; not the model's weights when read back; report it as a bug")


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """Turn the errors that the libraries raise on a full disk into one sentence."""
    try:
        with writing(folder, "export"):
            yield
    except Exception as error:
        if (reason := no_room(error)) is None:
            raise
        raise ResultError(f"export: {folder}; {reason}; make room, or name a folder on another disk") from None
