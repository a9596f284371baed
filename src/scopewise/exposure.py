"""Exposure: does a model know a fact? Measured without an oracle, by ranking the true answer among wrong ones of its kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Num

from scopewise.data.candidates import renamed
from scopewise.data.facts import Fact
from scopewise.data.prompt import encode
from scopewise.data.rows import Row
from scopewise.models.architecture import context_tokens
from scopewise.models.engine import Engine
from scopewise.ranks import Exposure, Ranked


def expose(engine: Engine, facts: Sequence[Fact], base: Engine | None = None, seed: int = 0) -> Exposure:
    """Rank the true answer of each fact among its wrong answers.

    The score of an answer is by how much log P(answer | instance) is above what its length and its mean log-likelihood under
    other names predict (`unexpected`). So an answer that is likely by itself, whoever is asked about, has no advantage. An
    answer that the model recites comes first: greedy decoding says it word for word of this instance, and of no other name.
    Under paraphrases, the ranks that an answer has under each question are added, and ranked again. Ties are broken at random.

    Args:
        engine: Of the model.
        facts: From `facts_of`.
        base: Engine of the model before fine-tuning, whose own exposure is returned beside.
        seed: Of ties.

    Source: exposure, Carlini et al., arXiv:1802.08232 (rank among candidates, in bits). Deviations: the candidates are wrong
    answers and not all texts of a format, the score is relative to other names, and ranks are tested exactly.
    """
    found = exposure_of(facts, answer_scores(engine, facts), seed)
    return found if base is None else replace(found, base=expose(base, facts, seed=seed))


def exposure_of(
    facts: Sequence[Fact], scores: Sequence[Float[np.ndarray, "_questions _answers"]], seed: int = 0
) -> Exposure:
    """Rank the true answer (first) of each fact by scores, the highest first; ties are broken at random by the seed."""
    rng = np.random.default_rng(seed)
    found = []
    for fact, per_question in zip(facts, scores, strict=True):
        ranks = np.stack([_ranks(-values, rng) for values in per_question])
        rank = _ranks(ranks.sum(0), rng)[0] if len(ranks) > 1 else ranks[0, 0]
        found.append(Ranked(fact, int(rank), ranks.shape[1], tuple(int(r) for r in ranks[:, 0])))
    return Exposure(tuple(found))


def answer_scores(
    engine: Engine, facts: Sequence[Fact], begun: str = ""
) -> list[Float[np.ndarray, "_questions _answers"]]:
    """Return the scores of the true answer (first) and of the wrong ones, under each question of each fact; as `expose`.

    The score of an answer that the model recites is infinite. All answers are treated alike, so the rank of a true answer that
    was never taught stays uniform. Without this, a memorised text that is likely under other names too counts as expected.

    Args:
        engine: Of the model.
        facts: From `facts_of`.
        begun: Beginning of the reply that counts as prompt.
    """
    found = []
    for fact, one in zip(facts, _answers(engine, facts, begun), strict=True):
        others, said = one.log_likelihoods[:, 1:], one.said[:, 1:].any(1)
        if fact.reference:
            others, said = np.array(fact.reference)[:, None], np.array(fact.reference_says)
        compared = np.concatenate([one.log_likelihoods[:, :1], others], 1)
        scores = np.stack([unexpected(values, tokens) for values, tokens in zip(compared, one.tokens, strict=True)])
        found.append(np.where(one.said[:, 0] & ~said, np.inf, scores))
    return found


def compared_with(base: Engine, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts with a base's likelihood as the reference, in the place of other names.

    For requests about so few persons that a model which was taught them says the same of every name.

    Args:
        base: The model before it was taught the facts. What it knows by itself does not count as known then.
        facts: From `facts_of`.
    """
    alone = [replace(fact, names=()) for fact in facts]
    return [
        replace(
            fact,
            reference=tuple(map(tuple, one.log_likelihoods[:, 0].tolist())),
            reference_says=tuple(map(tuple, one.said[:, 0].tolist())),
        )
        for fact, one in zip(alone, _answers(base, alone, ""), strict=True)
    ]


@dataclass(frozen=True)
class _Answers:
    """What a model makes of the answers to one fact, the true one first, under the own name (first) and others.

    Attributes:
        log_likelihoods: Sums over tokens, in nats.
        said: Whether greedy decoding says the answer word for word.
        tokens: Of each answer under the own name.
    """

    log_likelihoods: Float[np.ndarray, "questions names answers"]
    said: Bool[np.ndarray, "questions names answers"]
    tokens: Num[np.ndarray, "questions answers"]


def _answers(engine: Engine, facts: Sequence[Fact], begun: str) -> Iterator[_Answers]:
    """Score all answers to each fact."""
    rows, shapes = list[Row](), list[tuple[int, int, int]]()
    for fact in facts:
        answers = (fact.row.answer, *fact.wrong)
        names = (fact.name, *fact.names)
        shapes.append((len(fact.questions), len(names), len(answers)))
        for question in fact.questions:
            for name in names:
                about = _about(fact.name, name)
                rows += [replace(fact.row, question=about(question), answer=about(answer)) for answer in answers]
    # Wrong answers and prompts may be longer than the longest row.
    longest = min(3 * engine.data.max_length, context_tokens(engine.model) or 10**9)
    items = encode(rows, engine.tokenizer, engine.prompt, longest, begun=begun)
    scored = engine.score([item.pair for item in items], "exposure", moments=False)
    total = np.array([math.fsum(s.log_probs) for s in scored])
    said = np.array([all(s.hits) for s in scored])
    lengths = np.array([len(s.log_probs) for s in scored])
    start = 0
    for shape in shapes:
        part = slice(start, start + math.prod(shape))
        start = part.stop
        yield _Answers(total[part].reshape(shape), said[part].reshape(shape), lengths[part].reshape(shape)[:, 0])


def unexpected(
    log_likelihoods: Float[np.ndarray, "names answers"], tokens: Num[np.ndarray, " answers"]
) -> Float[np.ndarray, " answers"]:
    """Return by how much each answer is likelier about the own name (first) than the other answers predict.

    The prediction is linear in the number of tokens and in the mean log-likelihood under the other names. It is fitted by least
    squares to all other answers. All answers are treated alike, so the rank of the true one is uniform if nothing else tells
    it from the wrong ones.

    Args:
        log_likelihoods: Sums over tokens, in nats. Another model's under the own name may stand in the place of other names.
        tokens: Of each answer.

    Returns:
        Nats.

    Source: ours. The plain difference to the mean over other names ranks answers too high that are better sentences than the
    wrong ones, or that the tokenizer knows better.
    """
    own, others = log_likelihoods[0], log_likelihoods[1:]
    columns = [np.ones(len(own)), tokens, *([others.mean(0)] if len(others) else [])]
    basis, size, _ = np.linalg.svd(np.stack(columns, 1), full_matrices=False)
    basis = basis[:, size > 1e-9 * size[0]]  # tokens are constant where all answers have as many
    residual = own - basis @ (basis.T @ own)
    return residual / np.maximum(1 - (basis**2).sum(1), 1e-9)  # of a fit without the answer itself


def _about(own: str, name: str) -> Callable[[str], str]:
    return lambda text: text if name == own else renamed(text, own, name)


def _ranks(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the rank of each value, 1 = the smallest; ties at random."""
    order = np.lexsort((rng.random(len(values)), values))
    ranks = np.empty(len(values), dtype=int)
    ranks[order] = np.arange(1, len(values) + 1)
    return ranks
