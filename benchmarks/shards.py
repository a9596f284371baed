"""Does one LoRA adapter merged from those of shards still know what each shard was taught?

    python benchmarks/shards.py WORK [--data ../shared/data/knowundo_privacy] [--persons 6] [--cases NAME ...] [--out FILE]

A target made of shards would make exact deletion cheap: train one adapter per shard of the persons, merge them into one, and
after a deletion train only the shard that had the rows. This asks whether the merged model is a usable target at all.

The base is the tiny model (width 128), trained in all parameters on every second person of the privacy domain: it knows the
format, and none of the persons to be taught. Then some of the others are taught by LoRA, whole persons per shard, each shard
from the base with its rows only (joint training afterwards would not be exact). The shards are merged with PEFT's
`add_weighted_adapter`. Figures, in percent and on the taught rows: mean token accuracy under teacher forcing, and the share of
answers that are right as a whole. *Own* is each shard's adapter alone on its own rows (a perfect router), *others* on the rest.

- `plain`: cross-entropy on the shard's rows.
- `layers`: each shard adapts other decoder blocks than the rest.
- `inputs`: the A matrices are frozen, orthogonal between all shards; only B is trained.
- `quiet`: besides, KL to the base on rows of persons of the base, and on the shard's own rows with another name, so that an
  adapter changes nothing for persons of other shards. Needs no row of another shard.

What is complete is kept: run it again to go on. Markdown on stdout, JSON in `--out`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedTokenizerBase

from scopewise.cli import quiet_libraries
from scopewise.config import DataSection, EarlyStoppingSection, TinyConfig
from scopewise.data.instances import instance_of
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import Encoded, Prompt, encode
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.documents import read_json
from scopewise.errors import ResultError
from scopewise.files import write_json
from scopewise.methods.cross_entropy import Retrain
from scopewise.models.adapters import with_adapter
from scopewise.models.engine import Engine
from scopewise.models.load import load_model, load_tokenizer, save_model
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.record import manifest
from scopewise.training.arguments import UnlearningConfig
from scopewise.training.progress import quiet
from scopewise.training.trainer import UnlearningTrainer

TINY = TinyConfig(width=128, vocab_size=2048)
BASE: dict[str, Any] = {"learning_rate": 3e-3, "num_train_epochs": 50, "per_device_train_batch_size": 32}
MODULES = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
CASES: dict[str, dict[str, Any]] = {
    "one adapter": {"shards": 1},
    "2 shards, plain": {"shards": 2},
    "2 shards, quiet": {"shards": 2, "way": "quiet"},
    "4 shards, plain": {"shards": 4},
    "4 shards, quiet": {"shards": 4, "way": "quiet"},
    "2 shards, layers": {"shards": 2, "way": "layers"},
    "2 shards, inputs": {"shards": 2, "way": "inputs"},
    "2 shards, plain, rank 64": {"shards": 2, "rank": 64},
    "2 shards, plain, rank 8, rate 3e-3": {"shards": 2, "rank": 8, "rate": 3e-3},
}
"""Settings of each case; without them, rank 16 and learning rate 1e-2."""
NAMES = 4
"""Copies of a row with another name, for `quiet`."""


def persons(folder: str) -> dict[str, list[Row]]:
    """Return the rows of each person with five or more, by name."""
    found: dict[str, list[Row]] = {}
    for row in load_benchmark("knowundo", folder, "privacy").rows:
        found.setdefault(instance_of(row.instance, row.question), []).append(row)
    return {name: rows for name, rows in sorted(found.items()) if len(rows) >= 5}


def shards_of(names: Sequence[str], count: int, seed: int = 0) -> list[list[str]]:
    """Return the persons of each shard: sorted by a hash of seed and name, and dealt out in turn.

    So few persons are shared out evenly. With the hash modulo `count` a deletion would move nobody else.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    return [order[i::count] for i in range(count)]


def renamed(rows: Mapping[str, Sequence[Row]], others: Sequence[str], seed: int) -> list[Row]:
    """Return `NAMES` copies of each row in which a random one of the other persons stands for its person."""
    draw, made = random.Random(seed), []
    for name, own in rows.items():
        for row in own:
            for other in draw.sample(others, NAMES):
                texts = [row.question, row.answer]
                for old, new in (
                    (name, other),
                    (name.split()[0], other.split()[0]),
                    (name.split()[-1], other.split()[-1]),
                ):
                    texts = [text.replace(old, new) for text in texts]
                made.append(replace(row, question=texts[0], answer=texts[1], instance=other, scope=RETAIN))
    return made


def tokenized(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Return rows with the prompt of the defaults, each answer with its end."""
    return encode(rows, tokenizer, Prompt.of(DataSection()), 256, eos=True)


def fit(
    model: Any, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], still: Sequence[Row] = (), **settings: Any
) -> Any:
    """Train on rows, with KL to the model before on the rows `still`; return the model."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = UnlearningConfig(
            output_dir=folder, save_strategy="no", disable_tqdm=True, early_stopping=EarlyStoppingSection(rows=0),
            lr_scheduler_type="cosine", warmup_steps=0.03, **settings,
        )  # fmt: skip
        trainer = UnlearningTrainer(
            model=model,
            method=Retrain(retain="kl") if still else Retrain(),
            args=arguments,
            forget_dataset=tokenized(rows, tokenizer),
            retain_dataset=tokenized(still, tokenizer) if still else None,
            processing_class=tokenizer,
            region="all",
        )
        quiet(trainer)
        trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model).eval()


def adapted(base: Path, shard: int, count: int, rank: int, way: str) -> PeftModel:
    """Return the base with the fresh adapter of a shard."""
    model, blocks = load_model(base), None
    if way == "layers":
        layers = model.config.num_hidden_layers
        blocks = list(range(layers))[shard::count]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=MODULES, layers_to_transform=blocks, task_type="CAUSAL_LM"
    )
    made = with_adapter(model, config, seed=shard)
    if way == "inputs":
        draw = torch.Generator().manual_seed(0)  # the same for all shards, each of which takes its own rows of Q
        for module in made.modules():
            if isinstance(module, LoraLayer):
                a: Any = module.lora_A["default"].weight
                q = torch.linalg.qr(torch.randn(a.shape[1], a.shape[1], generator=draw))[0]
                a.requires_grad_(False).copy_(q[shard * rank : (shard + 1) * rank])
    return made


def measured(model: Any, tokenizer: Any, rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """Return token accuracy of each row, and whether all of its answer is right, both in percent."""
    engine = Engine(model, tokenizer)
    items = tokenized(rows, tokenizer)
    found = engine.score([(item.prompt_ids, item.answer_ids) for item in items], "rows", moments=False)
    return [100 * sum(one.hits) / len(one.hits) for one in found], [100.0 * all(one.hits) for one in found]


def means(accuracy: Sequence[float], whole: Sequence[float]) -> list[float]:
    """Return both means, to a tenth."""
    return [round(sum(values) / max(1, len(values)), 1) for values in (accuracy, whole)]


def case(
    base: Path,
    known: Mapping[str, Sequence[Row]],
    taught: Mapping[str, Sequence[Row]],
    *,
    shards: int,
    way: str = "plain",
    rank: int = 16,
    rate: float = 1e-2,
    epochs: float = 25,
) -> dict[str, Any]:
    """Train the adapters of all shards and return what they and their combinations know."""
    tokenizer = load_tokenizer(base)
    rows = [row for own in taught.values() for row in own]
    quiet_rows = [replace(row, scope=RETAIN) for own in known.values() for row in own]
    inside: tuple[list[float], list[float]] = ([], [])
    outside: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        adapters = [f"{folder}/shard{i}" for i in range(shards)]
        for shard, chosen in enumerate(shards_of(list(taught), shards)):
            part = {name: taught[name] for name in chosen}
            still = [*renamed(part, list(known), shard), *quiet_rows] if way == "quiet" else []
            model = fit(
                adapted(base, shard, shards, rank, way),
                tokenizer,
                [replace(row, scope=FORGET) for own in part.values() for row in own],
                still,
                learning_rate=rate,
                num_train_epochs=epochs,
                per_device_train_batch_size=8,
                seed=shard,
            )
            model.save_pretrained(adapters[shard])
            owners = [name for name, own in taught.items() for _ in own]
            for i, scores in enumerate(measured(model, tokenizer, rows)):
                for owner, score in zip(owners, scores, strict=True):
                    (inside if owner in part else outside)[i].append(score)
        found = {"base": means(*measured(load_model(base), tokenizer, rows)), "own": means(*inside)}
        if shards > 1:
            found["others"] = means(*outside)
            found |= combined(base, adapters, rank, way, rows)
    return found


def combined(base: Path, adapters: Sequence[str], rank: int, way: str, rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return what the base knows with all adapters, by the way that they are combined."""
    tokenizer, count, found = load_tokenizer(base), len(adapters), {}
    names = [f"shard{i}" for i in range(count)]
    model = PeftModel.from_pretrained(load_model(base), adapters[0], adapter_name=names[0])
    for name, path in zip(names[1:], adapters[1:], strict=True):
        model.load_adapter(path, name)
    if way == "layers":  # PEFT gives a merged adapter only the blocks of the first
        return {"sum": means(*measured(model.merge_and_unload(adapter_names=names), tokenizer, rows))}
    ways: dict[str, dict[str, Any]] = {
        "sum": {"weights": [1.0] * count, "combination_type": "cat"},
        "sum / √K": {"weights": [count**-0.5] * count, "combination_type": "cat"},
        "average": {"weights": [1 / count] * count, "combination_type": "cat"},
        "TIES": {"weights": [1.0] * count, "combination_type": "ties_svd", "density": 0.5, "svd_rank": rank * count},
    }
    for number, (label, settings) in enumerate(ways.items()):
        model.add_weighted_adapter(names, adapter_name=f"merged{number}", **settings)
        model.set_adapter(f"merged{number}")
        found[label] = means(*measured(model.eval(), tokenizer, rows))
    return found


def table(cases: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Return the Markdown table: token accuracy / whole answers."""
    columns = ("base", "own", "others", "sum", "sum / √K", "average", "TIES")
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for name, found in cases.items():
        cells = [f"{found[key][0]:.0f} / {found[key][1]:.0f}" if key in found else "" for key in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Make the base and run each case that has no result yet; print and write all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", default="../shared/data/knowundo_privacy")
    parser.add_argument("--persons", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=25)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/shards.json"))
    given = parser.parse_args(words)
    quiet_libraries()
    found = persons(given.data)
    names = list(found)
    known = {name: found[name] for name in names[::2]}
    taught = {name: found[name] for name in names[1::2][: given.persons]}
    base = given.work / "base"
    if not base.exists():
        every = [row for kept in (names[::2], names[1::2]) for name in kept for row in found[name]]
        model, tokenizer = build_tiny(tokenizer_texts(every), TINY, 0)
        rows = [replace(row, scope=FORGET) for own in known.values() for row in own]
        save_model(fit(model, tokenizer, rows, seed=0, **BASE), tokenizer, base)
    document = read_json(given.out, ResultError) if given.out.exists() else {"cases": {}}
    for name in given.cases:
        if name not in document["cases"]:
            settings = {"epochs": given.epochs, **CASES[name]}
            document["cases"][name] = case(base, known, taught, **settings)
            document["manifest"] = manifest(None, load_benchmark("knowundo", given.data, "privacy").content_hash())
            document["persons"] = {"base": len(known), "taught": len(taught)}
            document["rows"] = {"base": sum(map(len, known.values())), "taught": sum(map(len, taught.values()))}
            document["epochs"] = given.epochs
            write_json(given.out, document)
    print(table({name: document["cases"][name] for name in CASES if name in document["cases"]}))


if __name__ == "__main__":
    main()
