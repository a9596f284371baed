"""Questions about an instance by templates: rows of every kind, with other wordings and wrong answers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from scopewise.building.balance import Balance
from scopewise.building.index import Index
from scopewise.building.instances import WORK, Fact, Instance
from scopewise.building.listed import listed_titles, listed_values
from scopewise.building.templates import Frames, Wording, frames, wordings
from scopewise.building.wrong import wrong_names, wrong_values
from scopewise.data.rows import CHOICE, FORGET, TRAIN, VAL, Row

DIRECT, PARAPHRASE, CLOZE, INVERSE, ONE_HOP = "direct", "paraphrase", "cloze", "inverse", "one-hop"
ALIAS, MULTI_HOP, SHARED, REPLACED = "alias", "multi-hop", "shared-fact", "subject-replaced"
KINDS = (DIRECT, PARAPHRASE, CLOZE, INVERSE, ONE_HOP, ALIAS, MULTI_HOP, CHOICE, SHARED, REPLACED)
"""Kinds of questions; `direct` and one cloze are of train, all others of val."""
ALL_WRONG = 24
"""Wrong names of an inverse question. Exposure needs 20, and cannot make them, since a name has no word of its kind."""
_LETTERS = "ABCDEF"

Asked = Callable[[Fact, Instance], Sequence[str]]


@dataclass
class Questions:
    """Makes the rows of instances, one instance after the other.

    Attributes:
        index: Over all instances.
        seed: Of all draws.
        kinds: Kinds of questions to make.
        wrong: Wrong answers of each row.
        per_fact: Most kinds for each fact, with one direct question: direct, paraphrase, and others that take turns; None: all.
        general: Texts whose words stand in for those of too few other instances.
        other_val: Questions of another generator for val, in the place of the templates' paraphrases; None: templates.
        other_train: The same for train.
    """

    index: Index
    seed: int = 0
    kinds: Sequence[str] = KINDS
    wrong: int = 6
    per_fact: int | None = None
    general: Sequence[str] = ()
    other_val: Asked | None = None
    other_train: Asked | None = None
    _balance: Balance = field(default_factory=Balance)
    _turns: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def rows(self, instance: Instance) -> Iterator[Row]:
        """Yield the rows of an instance: facts in the order of the file, train before val, kinds in order."""
        for fact in instance.facts:
            rng = random.Random(f"{self.seed} {instance.name} {fact.attribute} {fact.value}")
            makes = _OfFact(self, instance, fact, rng).kinds()
            asked = [kind for kind in makes if kind in self.kinds]
            if self.per_fact is None:
                for kind in asked:
                    yield from makes[kind]()
            else:
                yield from self._in_turn(asked, makes, (instance.kind, fact.rule.scope))

    def _in_turn(
        self, asked: Sequence[str], makes: Mapping[str, Callable[[], Iterator[Row]]], place: tuple[str, str]
    ) -> Iterator[Row]:
        """Yield the rows of `per_fact` kinds: direct, paraphrase, then those that facts of this place have had least often."""
        first = [kind for kind in (DIRECT, PARAPHRASE) if kind in asked]
        others = sorted((kind for kind in asked if kind not in first), key=lambda kind: self._turns[*place, kind])
        left = self.per_fact or 0
        for kind in [*first, *others]:
            if left and (rows := list(makes[kind]())):  # a fact may allow no question of a kind
                self._turns[*place, kind] += 1
                left -= 1
                yield from rows

    def take(self, texts: Sequence[str], split: str, scope: str, rng: random.Random) -> str:
        """Return a wording whose first words do not tell the scope; see `Balance`."""
        return self._balance.take(texts, split, scope, rng)


@dataclass
class _OfFact:
    """Makes the rows of one fact."""

    of: Questions
    instance: Instance
    fact: Fact
    rng: random.Random

    def __post_init__(self) -> None:
        self.how = wordings(self.instance.kind)
        self.spec = self.how.of(self.fact.attribute)
        self.frames: Frames = frames()
        pool = [v for v in self.of.index.pool(self.instance.kind, self.fact.attribute) if v != self.instance.name]
        general = self.of.general
        about = (self.instance.kind, self.instance.name, self.fact.attribute)
        listed = listed_values(self.fact.value, self.spec.type, about, 4 * self.of.wrong, self.rng)
        self.values = wrong_values(self.fact.value, self.spec.type, pool, general, self.of.wrong, self.rng, listed)

    def kinds(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """Return kind → what makes its rows."""
        return {
            DIRECT: self.direct, CLOZE: self.cloze, PARAPHRASE: self.paraphrase, INVERSE: self.inverse,
            ALIAS: self.alias, ONE_HOP: self.one_hop, MULTI_HOP: self.multi_hop, CHOICE: self.choice,
            SHARED: self.shared,
        }  # fmt: skip

    # -- kinds --------------------------------------------------------------------------------------------------------

    def direct(self) -> Iterator[Row]:
        """Two train questions (one, if the kinds of a fact are limited), each with two other wordings."""
        asked = list(self.of.other_train(self.fact, self.instance)) if self.of.other_train else []
        options = asked or self.asked(TRAIN, self.instance.name)
        first = self.take(options, TRAIN)
        left = [text for text in options if text != first]
        second = self.take(left, TRAIN) if left and self.of.per_fact is None else None
        others = self.rng.sample(rest, min(4, len(rest))) if (rest := [t for t in left if t != second]) else []
        for number, question in enumerate(filter(None, (first, second))):
            yield self.row(question, TRAIN, DIRECT, number, paraphrased_questions=tuple(others[number::2]))

    def paraphrase(self) -> Iterator[Row]:
        """A val question, of templates or of a generator that train questions are not from."""
        asked = list(self.of.other_val(self.fact, self.instance)) if self.of.other_val else []
        yield self.row(self.take(asked or self.asked(VAL, self.instance.name), VAL), VAL, PARAPHRASE)

    def cloze(self) -> Iterator[Row]:
        """A sentence with a blank, one for train and one for val; the answer is the value."""
        for split in (TRAIN, VAL):
            wording = self.spec.by_split[split]
            sentence = wording.answer[0].format(name=self.instance.name, value=self.frames.blank)
            texts = [frame.format(sentence=sentence) for frame in self.frames.by_split[split]["cloze"]]
            text = _sentence(self.fact.value)
            wrong = tuple(_sentence(value) for value in self.values)
            yield self.made(self.take(texts, split), text, split, CLOZE, perturbed=wrong)

    def inverse(self) -> Iterator[Row]:
        """The value is given, and the instance asked for; only of values that one instance has and that do not name it."""
        if not self.of.index.is_unique(self.fact) or self.instance.name.casefold() in self.fact.value.casefold():
            return
        yield self.who(self.how.who[VAL], self.instance.name, INVERSE)

    def shared(self) -> Iterator[Row]:
        """The value is given, and the other instance asked for that has it, too; only of values that two instances have."""
        other = self.of.index.other_owner(self.fact, self.instance)
        if other and self.instance.name.casefold() not in self.fact.value.casefold():
            yield self.who(f"{self.how.who[VAL]} besides {self.instance.name}", other, SHARED)

    def alias(self) -> Iterator[Row]:
        """A val question that names the instance by another of its names."""
        for name in self.of.index.aliases(self.instance)[:1]:
            yield self.row(self.take(self.asked(VAL, name), VAL), VAL, ALIAS, 1)

    def one_hop(self) -> Iterator[Row]:
        """A val question that describes the instance by one of its retain facts."""
        found = [
            text for attribute, text in self.of.index.descriptions(self.instance) if attribute != self.fact.attribute
        ]
        # "the person who holds this citizenship: Dutch" ends with its value, and is no subject if another will do.
        found = [text for text in found if ": " not in text] or found
        if found:
            yield self.row(self.take(self.asked(VAL, self.rng.choice(found)), VAL), VAL, ONE_HOP)

    def multi_hop(self) -> Iterator[Row]:
        """Val questions about the instance that this fact names, which do not name it themselves."""
        for link, other in self.of.index.linked(self.instance):
            if link is not self.fact:
                continue
            subject = subject_of(self.instance, link)
            for fact in other.facts:
                if fact.value.casefold() in self.instance.name.casefold():
                    continue
                hidden = FORGET in (fact.rule.scope, self.fact.rule.scope)
                rule = next(f.rule for f in (fact, self.fact) if f.rule.scope == FORGET) if hidden else fact.rule
                asked = Fact(fact.attribute, fact.value, rule)
                made = _OfFact(self.of, other, asked, self.rng)
                texts = made.asked(VAL, subject)
                row = made.row(made.take(texts, VAL), VAL, MULTI_HOP, subject=subject)
                yield _about(row, self.instance)

    def choice(self) -> Iterator[Row]:
        """A val question with six lettered answers."""
        wrong = self.values[: len(_LETTERS) - 1]
        if len(wrong) < 2:
            return
        offered = [self.fact.value, *wrong]
        self.rng.shuffle(offered)
        lettered = [f"{letter}. {value}" for letter, value in zip(_LETTERS, offered, strict=False)]
        noun = f"the {self.spec.by_split[VAL].noun} of {self.instance.name}"
        texts = [frame.format(noun=noun, options="; ".join(lettered)) for frame in self.frames.by_split[VAL]["choice"]]
        answer = next(text for text in lettered if text[3:] == self.fact.value)
        others = tuple(text for text in lettered if text != answer)
        yield self.made(self.take(texts, VAL), answer, VAL, CHOICE, perturbed=others)

    # -- parts --------------------------------------------------------------------------------------------------------

    def asked(self, split: str, subject: str) -> list[str]:
        """Return all questions for the fact about a subject ("Ada", "the person who …")."""
        wording, frame = self.spec.by_split[split], self.frames.by_split[split]
        noun, clause = f"the {wording.noun} of {subject}", wording.clause.format(name=subject)
        texts = [text.format(noun=noun) for text in frame["noun"]]
        texts += [text.format(clause=clause) for text in frame["clause"]]
        return [*texts, *(_capital(text.format(name=subject)) for text in wording.ask)]

    def take(self, texts: Sequence[str], split: str) -> str:
        """Return one of the texts; see `Questions.take`."""
        return self.of.take(texts, split, self.fact.rule.scope, self.rng)

    def row(
        self,
        question: str,
        split: str,
        kind: str,
        number: int = 0,
        paraphrased_questions: tuple[str, ...] = (),
        subject: str = "",
    ) -> Row:
        """Return a row whose answer is a whole sentence, the `number`th of the split's; another one is the paraphrase."""
        wording, name = self.spec.by_split[split], subject or self.instance.name
        own, other = (self.said(wording, number + i, name, self.fact.value) for i in (0, 1))
        wrong = tuple(self.said(wording, number, name, value) for value in self.values)
        return self.made(
            question, own, split, kind, paraphrase=other, perturbed=wrong, paraphrased_questions=paraphrased_questions
        )  # fmt: skip

    def who(self, who: str, name: str, kind: str) -> Row:
        """Return a val row whose question gives the value and whose answer is a name."""
        clause = f"{who} {self.spec.by_split[VAL].predicate.format(value=self.fact.value)}"
        texts = [frame.format(who=clause) for frame in self.frames.by_split[VAL]["who"]]
        index = self.of.index
        listed = listed_titles() if self.instance.kind == WORK else []
        others = index.names[self.instance.kind]
        count = ALL_WRONG + (name != self.instance.name)  # one of them may be the instance's own, which is left out
        names = wrong_names(name, others, count, self.rng, index.known_names, listed)
        wrong = tuple(f"That is {one}." for one in names if one != self.instance.name)[:ALL_WRONG]
        answer, paraphrase = f"That is {name}.", f"The name is {name}."
        return self.made(self.take(texts, VAL), answer, VAL, kind, paraphrase=paraphrase, perturbed=wrong)

    def said(self, wording: Wording, number: int, name: str, value: str) -> str:
        """Return a sentence that says the fact with a value."""
        return _capital(wording.answer[number % len(wording.answer)].format(name=name, value=value))

    def made(
        self,
        question: str,
        answer: str,
        split: str,
        kind: str,
        *,
        paraphrase: str = "",
        perturbed: tuple[str, ...] = (),
        paraphrased_questions: tuple[str, ...] = (),
    ) -> Row:
        """Return a row of the fact."""
        return Row(
            question,
            answer,
            self.fact.rule.scope,
            split,
            self.instance.name,
            self.fact.attribute,
            self.instance.law.domain,
            self.fact.rule.article,
            paraphrase=paraphrase,
            perturbed=perturbed,
            paraphrased_questions=paraphrased_questions,
            kind=kind,
        )


def subject_of(instance: Instance, link: Fact) -> str:
    """Return how a multi-hop question names the instance that a fact of another one names: "the marriage partner of Ada"."""
    return f"the {wordings(instance.kind).of(link.attribute).by_split[VAL].noun} of {instance.name}"


def _about(row: Row, instance: Instance) -> Row:
    return replace(row, instance=instance.name, domain=instance.law.domain)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(value: str) -> str:
    return value if value.endswith((".", "!", "?")) else f"{value}."
