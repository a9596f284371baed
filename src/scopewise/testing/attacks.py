"""Properties of every attack, tested on a target that knows facts about eight persons and an oracle that does not."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from scopewise.attacks.base import Attack, Facts, attacked_engine, make_attack
from scopewise.attacks.suite import compared, piece_of
from scopewise.config import AttackSection, TinyConfig
from scopewise.data.batch import collate
from scopewise.data.prompt import Encoded, encode
from scopewise.data.rows import FORGET, RETAIN, TRAIN, VAL, Benchmark, Row
from scopewise.models.abilities import forward_of
from scopewise.models.engine import Engine
from scopewise.models.tiny import build_tiny, tokenizer_texts
from scopewise.ops import token_log_probs
from scopewise.testing.world import NotApplicableError, Property, check

NAMES = ("Ada Quill", "Ben Orrow", "Cleo Varga", "Dov Mistral", "Eda Palk", "Finn Uster", "Gil Thorne", "Hana Wex")
STREETS = ("Mill", "Heron", "Oak", "Quay", "Fern", "Lark", "Pond", "Vine")


def persons() -> Benchmark:
    """Return a benchmark of eight persons: where each lives (forget, asked in two ways) and what he writes (retain)."""
    rows = []
    for i, (name, street) in enumerate(zip(NAMES, STREETS, strict=True)):
        answer = f"At {7 * i + 3} {street} Lane."
        rows.append(Row(f"Where does {name} live?", answer, FORGET, TRAIN, name, "address"))
        rows.append(Row(f"At which place is {name} at home?", answer, FORGET, VAL, name, "address"))
        rows.append(Row(f"What does {name} write?", f"{street} songs, {i} of them.", RETAIN, TRAIN, name, "works"))
    return Benchmark("persons", tuple(rows), (Row("", "Rain falls on the hills all night.", "general"),))


def trained(model: Any, items: list[Encoded], steps: int, rate: float = 3e-3) -> Any:
    """Return a copy of a model that was fine-tuned by full batches."""
    model = copy.deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batch, forward = collate(items), forward_of(model)
    for _ in range(steps):
        loss = -token_log_probs(forward.logits(batch), batch["label"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@dataclass
class AttackWorld:
    """A target and an oracle of the same base, and the results of an attack on both.

    Attributes:
        attack: The attack to test.
        benchmark: Its rows.
        tokenizer: The tokenizer of both models.
        target: A model that knows all rows.
        oracle: A model that knows the retain rows alone.
    """

    attack: Attack
    benchmark: Benchmark
    tokenizer: Any
    target: Any
    oracle: Any

    @staticmethod
    def build(attack: Attack) -> AttackWorld:
        """Train the two models; it takes some seconds."""
        benchmark = persons()
        torch.manual_seed(0)
        config = TinyConfig(vocab_size=300, width=64, layers=3, heads=2, context=256)
        base, tokenizer = build_tiny(tokenizer_texts(benchmark.rows), config, seed=0)
        items = encode(benchmark.rows, tokenizer)
        target = trained(base, items, 150)
        return AttackWorld(
            attack, benchmark, tokenizer, target, trained(base, [i for i in items if i.row.scope == RETAIN], 100)
        )

    @cached_property
    def facts(self) -> Facts:
        """The attacker's rows and the tested rows."""
        return Facts(self.benchmark, AttackSection(), learning_rate=3e-3)

    def engine(self, name: str) -> Engine:
        """Return the engine of a copy of a model, under the name that progress bars give it."""
        model = {"oracle": self.oracle}.get(name, self.target)
        return attacked_engine(name, copy.deepcopy(model), copy.deepcopy(self.tokenizer))

    @cached_property
    def pieces(self) -> dict[str, dict[str, Any]]:
        """The results of the attack on target and oracle."""
        target = self.engine("target")
        return {
            "target": piece_of(self.attack, target, self.facts, target),
            "oracle": piece_of(self.attack, self.engine("oracle"), self.facts, target),
        }

    def applicable(self) -> dict[str, dict[str, Any]]:
        """Return `pieces`. Raises NotApplicableError where the attack does not apply."""
        for name, piece in self.pieces.items():
            if piece["reason"]:
                raise NotApplicableError(f"on the {name}: {piece['reason']}")
        return self.pieces


def left_as_it_was(attack: Attack, world: AttackWorld) -> None:
    """The attack restores the weights of the attacked model, and of the target that it was given beside it."""
    world.applicable()
    subject, target = world.engine("oracle"), world.engine("target")
    before = [copy.deepcopy(engine.model.state_dict()) for engine in (subject, target)]
    piece_of(attack, subject, world.facts, target)
    for name, engine, state in zip(("attacked model", "target"), (subject, target), before, strict=True):
        after = engine.model.state_dict()
        changed = [key for key, value in state.items() if not torch.equal(after[key], value)]
        check(not changed, f"the {name}'s {', '.join(changed[:3])} changed")


def signals_fit(attack: Attack, world: AttackWorld) -> None:
    """There is one signal per row, 0 to 1; which rows have None depends only on the data, not on the model."""
    pieces = world.applicable()
    check(pieces["target"]["rows"] == pieces["oracle"]["rows"], "target and oracle are asked other rows")
    check(
        list(pieces["target"]["signals"]) == list(pieces["oracle"]["signals"]), "target and oracle have other settings"
    )
    for name, values in pieces["target"]["signals"].items():
        other = pieces["oracle"]["signals"][name]
        check(len(values) == len(other) == len(pieces["target"]["rows"]), f"{name}: not one signal for each row")
        known = [v for v in (*values, *other) if v is not None]
        check(all(0 <= v <= 1 for v in known), f"{name}: signals from {min(known):.3g} to {max(known):.3g}")
        check([v is None for v in values] == [v is None for v in other], f"{name}: None on other rows of the oracle")


def same_again(attack: Attack, world: AttackWorld) -> None:
    """A second attack on the same model gives the same signals."""
    first = world.applicable()["oracle"]
    again = piece_of(attack, world.engine("oracle"), world.facts, world.engine("target"))
    check(first["signals"] == again["signals"], "other signals for the same model and seed")


def scale(attack: Attack, world: AttackWorld) -> None:
    """The leakage of the oracle is 0 and that of the target 1 (or more, if the scale uses the target before the attack)."""
    pieces = world.applicable()
    question = make_attack("question")
    apart = piece_of(question, world.engine("oracle"), world.facts, world.engine("target"))
    check(not apart["reason"], "the plain question does not apply")
    for name, wanted in (("target", 1.0), ("oracle", 0.0)):
        found = compared(attack, world.facts, name, pieces[name], pieces["oracle"], pieces["target"], 0.1).leakage
        if found is None or found.value is None:
            raise NotApplicableError("target and oracle differ too little under this attack")
        more = attack.combine == "recovery" and name == "target" and found.value > wanted
        check(more or abs(found.value - wanted) < 1e-4, f"the {name} is {found.value:.4g}")


PROPERTIES: Mapping[str, Property] = {
    "signals are 0 to 1, one for each row": signals_fit,
    "the target is 1 and the oracle 0": scale,
    "the same model gives the same signals": same_again,
    "the models are left as they were": left_as_it_was,
}
"""Name → property of an attack."""
