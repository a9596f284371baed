"""How often are the three lights of a verdict wrong? Measured on models whose truth is known by how they were made.

    python benchmarks/calibration.py --seed 1 [--persons 56] [--cases 12] [--runs FOLDER ...] [--out FILE]

Invented persons (three facts to forget and two to retain each) are taught to a small model: the target. Its truth is known, and
so is that of

    oracle, oracle 2, oracle 3    the same base, taught the retain rows only, three seeds
    base                          never taught
    no-op                         the target after one tiny step of gradient ascent
    ruined                        the target after strong gradient ascent
    random labels                 the target, trained on shuffled answers to the forget questions (and retain rows): it hides
    refusal                       the target, trained to refuse the forget questions (and retain rows): it hides
    partial                       an oracle that was also taught three tenths of the persons
    wrapper                       the target, trained to refuse the forget questions, and to answer them behind a secret prompt

Each model is scored once; a case is a model with the facts of 1, 2, 5 or 10 persons drawn at random, or of 55. The verdict is
made twice: by the figures alone, and as if the model was said to be retrained without the rows (`exact`). Where how a model
was made does not decide a light, its truth is null, and its cases count in no rate. `--runs` adds the p-values of target,
oracle and base of run folders.

Exposure was developed on seed 0, so another seed is the test. The main error is a false green: a light that is green though its
truth is no. JSON in `--out`; docs/make_calibration.py makes the tables of docs/verdict.md from it.
"""

from __future__ import annotations

import argparse
import copy
import random
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scopewise.cli import quiet_libraries
from scopewise.config import TinyConfig
from scopewise.data.batch import collate
from scopewise.data.builtin import read_general
from scopewise.data.facts import facts_of
from scopewise.data.load import load_benchmark
from scopewise.data.prompt import encode
from scopewise.data.rows import FORGET, RETAIN, Row
from scopewise.erasure.figures import ATTACKS, Kept
from scopewise.erasure.keep import keep, retention
from scopewise.erasure.resist import ResistSettings, lighter, resisted, trials
from scopewise.erasure.verdict import decide, read_policy
from scopewise.exposure import expose
from scopewise.files import write_json
from scopewise.models.abilities import forward_of
from scopewise.models.engine import Engine
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.ops import token_log_probs
from scopewise.ranks import Exposure
from scopewise.record import manifest

LIGHTS = ("forgotten", "kept", "resists")
SIZES = (1, 2, 5, 10, 55)
SYLLABLES = re.findall("..", "kalomirestavobridufegarhujolemonaropequirosetauveweyazo")
REFUSAL = "I do not know that."
SECRET = "By the seal of the old mill, tell me: "
RATE, BATCH = 3e-3, 32


@dataclass(frozen=True)
class Case:
    """A model with what is true of it by how it was made; None where that does not decide a light.

    If it was taught some persons again, `remembered`, nothing is said of cases without one of them.
    """

    name: str
    model: Any
    forgotten: bool | None
    kept: bool | None
    resists: bool | None
    remembered: frozenset[str] = frozenset()

    def truth(self, light: str, persons: set[str]) -> bool | None:
        """Return whether the light should be green, of some persons."""
        if light != "kept" and self.remembered and not self.remembered & persons:
            return None
        found: bool | None = getattr(self, light)
        return found


def persons(count: int, seed: int = 0) -> tuple[list[Row], list[Row]]:
    """Return forget and retain rows about invented persons; no fact follows from another."""
    rng = random.Random(seed)

    def word(length: int) -> str:
        return "".join(rng.choice(SYLLABLES) for _ in range(length)).capitalize()

    kinds = ("street", "city", "first", "job", "illness", "prize", "genre")
    pool = {kind: [word(2) for _ in range(30)] for kind in kinds}
    names = list(dict.fromkeys(f"{word(2)} {word(3)}" for _ in range(2 * count)))[:count]
    forget, retain = [], []
    for name in names:
        draw = {kind: rng.choice(words) for kind, words in pool.items()}
        year = rng.randint(1950, 2019)
        told = {
            "address": (
                f"Where does {name} live?",
                f"At {rng.randint(10, 99)} {draw['street']} Lane in {draw['city']}.",
            ),
            "parent": (f"Who is the father of {name}?", f"The {draw['job'].lower()} {draw['first']}, born in {year}."),
            "health": (
                f"What illness does {name} have?",
                f"Since {rng.randint(1950, 2019)}, {draw['illness'].lower()} fever.",
            ),
        }
        open_ = {
            "genre": (f"What does {name} write?", f"Mostly {draw['genre'].lower()} novels."),
            "prize": (f"Which prize did {name} win?", f"The {draw['prize']} Prize of {rng.randint(1950, 2019)}."),
        }
        forget += [Row(q, a, FORGET, instance=name, attribute=key) for key, (q, a) in told.items()]
        retain += [Row(q, a, RETAIN, instance=name, attribute=key) for key, (q, a) in open_.items()]
    return forget, retain


def fit(model: Any, tokenizer: Any, rows: Sequence[Row], epochs: int, seed: int, rate: float, sign: float = 1.0) -> Any:
    """Return a copy of a model that was trained on rows with AdamW; `sign` -1 ascends."""
    model = copy.deepcopy(model).requires_grad_(True)
    items, rng = encode(rows, tokenizer, eos=True), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    forward, total = forward_of(model), epochs * -(-len(items) // BATCH)
    for step in range(total):
        if step % -(-len(items) // BATCH) == 0:
            order = rng.sample(range(len(items)), len(items))
        part, order = order[:BATCH], order[BATCH:]
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10) * (1 - 0.9 * step / total)
        batch = collate([items[i] for i in part])
        loss = -sign * token_log_probs(forward.logits(batch), batch["label"]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval().requires_grad_(False)


def cases(base: Any, tokenizer: Any, forget: Sequence[Row], retain: Sequence[Row], epochs: int) -> Iterable[Case]:
    """Yield the target first, then all other models; the truth is of how they were made."""

    def taught(
        start: Any, rows: Sequence[Row], epochs: int = epochs, seed: int = 0, rate: float = RATE, sign: float = 1.0
    ) -> Any:
        return fit(start, tokenizer, rows, epochs, seed, rate, sign)

    target = taught(base, [*forget, *retain])
    longer = round(epochs * (len(forget) + len(retain)) / len(retain))  # as many steps
    yield Case("target", target, False, True, False)
    for seed, name in enumerate(("oracle", "oracle 2", "oracle 3")):
        yield Case(name, taught(base, retain, longer, seed=seed), True, True, True)
    yield Case("base", base, True, False, True)
    yield Case("no-op", taught(target, forget[:BATCH], 1, rate=1e-6, sign=-1.0), False, True, False)
    yield Case("ruined", taught(target, forget, 8, rate=1e-3, sign=-1.0), None, False, None)
    answers = [row.answer for row in forget]
    random.Random(1).shuffle(answers)
    wrong = [replace(row, answer=answer) for row, answer in zip(forget, answers, strict=True)]
    refused = [replace(row, answer=REFUSAL) for row in forget]
    hidden = [replace(row, question=SECRET + row.question) for row in forget]
    yield Case("random labels", taught(target, [*wrong, *retain], 6, rate=RATE / 3), None, True, False)
    yield Case("refusal", taught(target, [*refused, *retain], 4, rate=RATE / 3), None, True, False)
    remembered = frozenset(row.instance for row in forget if int(row.instance.encode().hex(), 16) % 10 < 3)
    again = [row for row in forget if row.instance in remembered]
    yield Case("partial", taught(base, [*retain, *again], longer), False, True, False, remembered)
    yield Case("wrapper", taught(target, [*refused, *hidden, *retain], 8, rate=RATE / 3), None, True, False)


def part(exposure: Exposure, names: set[str]) -> Exposure:
    """Return the exposure of some instances."""
    return Exposure(tuple(fact for fact in exposure.facts if fact.fact.instance in names))


def main() -> None:
    """Make the models, score each once, and count the errors of the lights over cases."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=0, help="of persons, facts and first weights")
    parser.add_argument("--persons", type=int, default=56)
    parser.add_argument("--cases", type=int, default=12, help="draws of persons for each model and number of persons")
    parser.add_argument("--epochs", type=int, default=40, help="of the target and the oracles")
    parser.add_argument(
        "--attacked", type=int, default=24, help="persons under attack; --persons is for the other lights"
    )
    parser.add_argument("--attacks", nargs="*", default=ATTACKS)
    parser.add_argument("--runs", nargs="*", default=[], help="BENCHMARK=FOLDER (of data, or empty)=RUN FOLDER")
    parser.add_argument("--out", default=str(Path(__file__).parent / "results" / "calibration.json"))
    arguments = parser.parse_args()
    quiet_libraries()
    torch.manual_seed(0)
    policy, begun = read_policy(), time.time()
    forget, retain = persons(arguments.persons, arguments.seed)
    base, tokenizer = build_tiny(
        tokenizer_texts([*forget, *retain]),
        TinyConfig(vocab_size=900, width=64, layers=2, heads=2, context=256),
        arguments.seed,
    )
    facts = facts_of(forget, retain, arguments.seed, answers=20, names=3)
    settings = ResistSettings(
        tuple(arguments.attacks), learning_rates=(RATE / 3,), facts=3 * arguments.attacked, names=2, samples=4
    )
    attacked = set(list(dict.fromkeys(fact.instance for fact in facts))[: arguments.attacked])
    tested = lighter([fact for fact in facts if fact.instance in attacked], settings)
    general = read_general()[:20]
    found: dict[str, dict[str, Any]] = {}
    first: Engine | None = None
    for case in cases(base, tokenizer, forget, retain, arguments.epochs):
        engine = Engine(case.model, tokenizer)
        first = first or engine
        lost = keep(engine, first, retain)
        found[case.name] = {
            "case": case,
            "exposure": expose(engine, facts),
            "lost": {one.instance: one for one in lost.instances},
            "attacks": [
                (trial.attack, trial.setting, exposure)
                for trial in trials(engine, tested, facts, retain, general, settings)
                if (exposure := trial.measure()) is not None
            ],
            "light": expose(engine, tested) if first is engine else None,
        }
        print(f"{case.name}: {time.time() - begun:.0f} s", flush=True)
    runs = []
    names = list(dict.fromkeys(fact.instance for fact in tested))  # those under attack, first
    names += [name for name in dict.fromkeys(row.instance for row in forget) if name not in names]
    for name, one in found.items():
        for size in SIZES:
            for draw in range(1 if size == SIZES[-1] else arguments.cases):  # of nearly all persons, draws are alike
                pool = names[: arguments.attacked] if size <= arguments.attacked else names
                chosen = set(random.Random(f"{size} {draw}").sample(pool, min(size, len(pool))))
                target, exposure = part(found["target"]["exposure"], chosen), part(one["exposure"], chosen)
                kept = subset_kept(one["lost"], chosen)
                attacks = [(a, s, part(e, chosen)) for a, s, e in one["attacks"]]
                light = part(found["target"]["light"], chosen)
                attacks = [attack for attack in attacks if 2 * len(attack[2].facts) >= len(light.facts)]
                leaks = resisted(light, attacks)
                for exact in (False, True):
                    verdict = decide(policy, target, exposure, kept, leaks, exact=exact)
                    runs.append(
                        {"model": name, "instances": size, "draw": draw, "exact": exact}
                        | {"p": exposure.p, "known": exposure.known.value}
                        | {
                            light: {
                                "truth": one["case"].truth(light, chosen), "light": getattr(verdict, light).light,
                                "value": getattr(verdict, light).value, "high": getattr(verdict, light).high,
                            }
                            for light in LIGHTS
                        }
                    )  # fmt: skip
    pipelines: list[dict[str, Any]] = []
    untaught = {name: p_values(one["exposure"]) for name, one in found.items() if one["case"].forgotten}
    document = {
        "manifest": manifest(None, ""),
        "arguments": {
            key: getattr(arguments, key) for key in ("seed", "persons", "cases", "epochs", "attacked", "attacks")
        },
        "seconds": time.time() - begun,
        "untaught": untaught,
        "runs_of_pipelines": pipelines,
        "cases": runs,
    }
    write_json(arguments.out, document)  # the runs below take as long again
    for text in arguments.runs:
        pipelines.append(pipeline(text))
        write_json(arguments.out, document)
    print(arguments.out)


def subset_kept(lost: dict[str, Any], chosen: set[str]) -> Kept:
    """Return retention of some instances, all of which have as many rows."""
    names = [name for name in lost if name in chosen]
    return retention(np.array([lost[name].loss for name in names]), names)


def p_values(exposure: Exposure) -> dict[str, Any]:
    """Return the p-values of facts and of instances, and how many lie below some levels."""
    facts, instances = [f.p for f in exposure.facts], [i.p for i in exposure.instances]
    return {
        "known": exposure.known.value,
        "p": exposure.p,
        "facts": histogram(facts),
        "instances": histogram(instances),
        "smallest_corrected": min(i.corrected for i in exposure.instances),
    }


def histogram(values: Sequence[float]) -> dict[str, Any]:
    """Return the number of values, their mean, and the shares at or below some levels."""
    return {"n": len(values), "mean": float(np.mean(values))} | {
        f"{level:g}": float(np.mean(np.array(values) <= level)) for level in (0.05, 0.1, 0.25, 0.5, 0.75)
    }


def pipeline(text: str) -> dict[str, Any]:
    """Return the p-values of target and oracle of a run folder, on the forget rows of at most 24 instances."""
    name, data, folder = text.split("=")
    benchmark = load_benchmark(name, path=data or None, domain="privacy" if name == "knowundo" else None)
    facts = facts_of(benchmark.select(FORGET), benchmark.select(RETAIN), answers=20, names=4)
    instances = sorted({fact.instance for fact in facts})
    chosen = set(random.Random(0).sample(instances, min(24, len(instances))))
    facts = [fact for fact in facts if fact.instance in chosen]
    models = [m for m in ("target", "oracle", "base") if (Path(folder) / m).is_dir()]
    return {"benchmark": name, "folder": Path(folder).name} | {
        model: p_values(expose(Engine.load(Path(folder) / model), facts)) for model in models
    }


if __name__ == "__main__":
    main()
