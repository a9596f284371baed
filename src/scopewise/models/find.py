"""Is there a model under this name? Looks at names and files alone. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from scopewise.documents import read_json
from scopewise.errors import ModelError
from scopewise.tensor_files import ADAPTER_CONFIG

_DOCUMENTS = ("config.json", ADAPTER_CONFIG, "tokenizer_config.json", "special_tokens_map.json")
_PATTERNS = ("generation_config.json", "*.safetensors.index.json")

_DESCRIBED = ("config.json", "adapter_config.json", "tokenizer_config.json", "tokenizer.json")
"""Files of a folder that is a model or an adapter itself, whether it also has GGUF files or not."""


def find_model(path: str | Path, revision: str | None = None, setting: str = "model") -> bool:
    """Return whether a model is on this machine (a folder, or cached while the hub is out of reach).

    The hub is asked once, without the libraries' retries, so that a wrong name is refused at once and not after a minute.

    Args:
        path: Folder or hub name.
        revision: Hub revision.
        setting: The one that names the model, for the sentence.

    Raises:
        ModelError: there is no such folder, and no such model on the hub, or the hub is out of reach; or the folder holds
            none.
    """
    advice = "give a folder, a GGUF file or a hub name of a causal language model"
    if gguf_file(path, setting) is not None:
        return True
    if is_folder(path, setting):
        if not any((Path(path) / file).exists() for file in _DESCRIBED):
            raise ModelError(f"{setting}: {path}; a folder without config.json or adapter_config.json; {advice}")
        check_documents(Path(path))
        return True
    name = str(path)
    if Path(path).is_file():
        raise ModelError(f"{setting}: {path}; is a file; {advice}")
    if Path(path).is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise ModelError(f"{setting}: {path}; no such folder; {advice}")
    reason = "neither a folder here nor a model or an adapter on the hub"
    for file in ("config.json", "adapter_config.json"):
        try:
            get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=10)
            return False
        except (EntryNotFoundError, RepositoryNotFoundError, HFValidationError):
            continue
        except Exception as error:  # the client raises many kinds of errors; all mean that the hub did not answer
            if isinstance(try_to_load_from_cache(name, file, revision=revision), str):
                return True
            reason = f"no such folder here, and the hub did not answer ({type(error).__name__})"
            if isinstance(error, OfflineModeIsEnabled):
                reason = "neither a folder here nor in the hub's cache, and HF_HUB_OFFLINE forbids a download"
    raise ModelError(f"{setting}: {path}; {reason}; {advice}")


def hub_snapshot(name: str, revision: str | None = None) -> Path | None:
    """Return the folder of a hub model's files in the cache, which its commit names; None if there is none.

    It has the files that were downloaded, as links to the cache's blobs.

    Args:
        name: `owner/name`.
        revision: Branch, tag or commit; None: `main`.
    """
    for file in ("config.json", ADAPTER_CONFIG):
        found = try_to_load_from_cache(name, file, revision=revision)
        if isinstance(found, str):
            return Path(found).parent
    return None


def is_folder(path: str | Path, setting: str = "model") -> bool:
    """Return whether a path is a folder. Raises ModelError if that cannot be determined (too long, no permission)."""
    try:
        if not Path(path).is_dir():
            return False
        next(Path(path).iterdir(), None)
        return True
    except OSError as error:
        raise ModelError(
            f"{setting}: {path}; {error.strerror}; give a folder that can be read, or a hub name"
        ) from None


def gguf_file(path: str | Path, setting: str = "model") -> Path | None:
    """Return the GGUF file that a model's path names, itself or by its folder; None if it names something else.

    Raises:
        ModelError: a folder with several GGUF files and no other model.
    """
    path = Path(path)
    try:
        if path.suffix == ".gguf":
            return path if path.is_file() else None
        if not path.is_dir() or any((path / name).exists() for name in _DESCRIBED):
            return None
        files = sorted(file for file in path.iterdir() if file.suffix == ".gguf" and file.is_file())
    except (OSError, ValueError):  # too long, or not readable: refused where the path is used
        return None
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
        raise ModelError(f"{setting}: {path}; a folder with {len(files)} GGUF files ({names}); give one of the files")
    return files[0] if files else None


def check_documents(folder: Path) -> None:
    """Raise ModelError for a JSON file of a model folder that is invalid or holds no mapping."""
    files = [folder / name for name in _DOCUMENTS] + [file for name in _PATTERNS for file in folder.glob(name)]
    for file in files:
        if file.is_file() and not isinstance(read_json(file, ModelError, nan=True), dict):
            raise ModelError(f"{file}: not a mapping of names to values; give a folder that was saved by the library")
