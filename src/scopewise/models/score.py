"""Scoring answers under teacher forcing: log-probabilities, arg-max hits and moments, from which all such metrics are made.

A prompt that several answers share (paraphrases, wrong answers) is forwarded once, and so is what several of them begin with,
and what several prompts begin with (examples before a question). The rest of each follows with its own position ids, and a mask
keeps it from attending to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from scopewise.bars import bar
from scopewise.data.batch import Unit, collate, collate_units, length_batches, to_device
from scopewise.data.prompt import Encoded
from scopewise.errors import ModelError
from scopewise.models.forward import Forward
from scopewise.models.parallel.fsdp import is_sharded
from scopewise.models.parallel.processes import gathered, share_of
from scopewise.ops import sequence_mean, sequence_sum

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Ids of a prompt and of an answer."""

LEAST_SAVED = 64
"""Tokens that joining two prompts must save: fewer are not worth a mask."""
JOINED_TOKENS = 1024
"""Tokens of a row with joined prompts, besides their common beginning: attention grows with its square."""


@dataclass(frozen=True)
class Scored:
    """The score of an answer given its prompt, under teacher forcing.

    Attributes:
        log_probs: log P of each answer token given everything before it, in nats, float32.
        hits: Whether each answer token is the arg-max.
        predicted_ids: The arg-max tokens.
        means: Mean of log P over the vocabulary under P itself (minus the entropy) at each position, in nats; NaN without
            moments.
        variances: Variance of log P, in nats².
        ends: Whether the last token is an end of sequence that was appended.
    """

    log_probs: tuple[float, ...]
    hits: tuple[bool, ...]
    predicted_ids: tuple[int, ...] = ()
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    ends: bool = False

    def without_end(self) -> Scored:
        """Return the same without the end of sequence, where there is one."""
        if not self.ends:
            return self
        cut = slice(0, -1)
        return Scored(
            self.log_probs[cut], self.hits[cut], self.predicted_ids[cut], self.means[cut], self.variances[cut]
        )


def score_pairs(
    forward: Forward,
    pairs: Sequence[Pair],
    max_tokens: int = 4096,
    description: str = "score",
    *,
    share_prompts: bool = True,
    moments: bool = True,
) -> list[Scored]:
    """Forward each unique pair once, in batches of similar length, with logits in fp32 at answer positions only.

    Under several processes each takes a share of the batches, and all get everything.

    Args:
        forward: Of a causal LM, which is put into evaluation mode and back.
        pairs: What to score.
        max_tokens: Padded tokens per batch; halved for what does not fit the device.
        description: Of the progress bar.
        share_prompts: Whether answers to the same prompt share its forward, where the model allows it.
        moments: Whether `means` and `variances` are wanted.

    Returns:
        One entry per pair, in order.

    Raises:
        ModelError: a logit is not finite, a prompt has no token, or one sequence alone does not fit the device.
    """
    unique = [pair for pair in dict.fromkeys(pairs) if pair[1]]  # an empty answer has nothing to forward
    if not all(prompt for prompt, _ in unique):
        raise ModelError("evaluate: a prompt has no tokens; the answer is predicted from at least one; remove that row")
    window = forward.window
    units = [Unit(prompt, (answer,)) for prompt, answer in unique]
    if (
        share_prompts
        and len(shared := _units(unique, window, max_tokens)) < len(units)
        and forward.abilities.shares_prompts
    ):
        units = shared
    found: dict[Pair, Scored] = {}

    def run(indices: list[int]) -> None:
        chosen = [units[i] for i in indices]
        # Our mask has no window, so rows longer than the window need the model's own mask.
        for part in _parts(chosen, window):
            for unit, results in zip(part, _scored(forward, part, moments), strict=True):
                found.update(zip(unit.pairs, results, strict=True))

    over_batches(forward, [len(unit) for unit in units], max_tokens, description, run)
    whole = {pair: scored for part in gathered(found) for pair, scored in part.items()}
    return [whole[pair] if pair[1] else Scored((), ()) for pair in pairs]


def _units(pairs: Sequence[Pair], window: int | None, max_tokens: int) -> list[Unit]:
    """Group answers by prompt, and prompts that begin alike; what is longer than the attention window goes answer by answer."""
    by_prompt: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for prompt, answer in pairs:
        by_prompt.setdefault(prompt, []).append(answer)
    if window is None:
        return _joined(by_prompt, max_tokens)
    units: list[Unit] = []
    for prompt, answers in by_prompt.items():
        whole = Unit(prompt, tuple(answers))
        units += [whole] if len(whole) <= window else [Unit(prompt, (answer,)) for answer in answers]
    return units


def _joined(by_prompt: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]], max_tokens: int) -> list[Unit]:
    """Join prompts that begin alike, such as those after the same examples, while that saves tokens."""
    units: list[Unit] = []
    prompts: list[tuple[int, ...]] = []
    common, rest = 0, 0

    def close() -> None:
        pairs = [(prompt, answer) for prompt in prompts for answer in by_prompt[prompt]]
        given = tuple(len(prompt) - common for prompt, _ in pairs) if len(prompts) > 1 else ()
        units.append(Unit(prompts[0][:common], tuple(prompt[common:] + answer for prompt, answer in pairs), given))

    for prompt in sorted(by_prompt):  # those that begin alike are neighbours
        own = len(prompt) + sum(map(len, by_prompt[prompt]))
        if prompts:
            shorter = _alike(prompts[0][:common], prompt)
            longer = rest + len(prompts) * (common - shorter) + own - shorter
            saves = len(prompts) * shorter - (len(prompts) - 1) * common
            if saves >= LEAST_SAVED and longer <= min(JOINED_TOKENS, max_tokens - shorter):
                prompts.append(prompt)
                common, rest = shorter, longer
                continue
            close()
        prompts, common, rest = [prompt], len(prompt), own - len(prompt)
    if prompts:
        close()
    return units


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal ids two prompts begin."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _parts(units: list[Unit], window: int | None) -> list[list[Unit]]:
    """Return the units as one batch, or with shared prompts apart where some unit is longer than the window."""
    together = [unit for unit in units if len(unit.answers) > 1]
    if window is None or not together or max(map(len, units)) <= window:
        return [units]
    return [together, [unit for unit in units if len(unit.answers) == 1]]


def over_batches(
    forward: Forward, lengths: Sequence[int], max_tokens: int, description: str, run: Callable[[list[int]], None]
) -> None:
    """Run this process's batches in evaluation mode, without gradients; batches that run out of memory are halved."""
    sharded = is_sharded(forward.model)
    batches = share_of(list(length_batches(lengths, max_tokens)), equal=sharded)
    with forward.evaluating(), bar(sum(map(len, batches)), description) as progress:
        for indices in batches:
            _halving(indices, run, may_halve=not sharded)
            progress.update(len(indices))


def _halving(indices: list[int], run: Callable[[list[int]], None], *, may_halve: bool) -> None:
    try:
        run(indices)
        return
    except torch.OutOfMemoryError:
        if not may_halve:
            raise ModelError(
                "evaluate: a batch does not fit into the device's memory, and with a sharded model it cannot be "
                "halved; lower evaluate.max_tokens"
            ) from None
        if len(indices) == 1:
            raise ModelError(
                "evaluate: a single sequence does not fit into the device's memory; use a smaller dtype, or a "
                "larger device"
            ) from None
    torch.accelerator.empty_cache()
    middle = len(indices) // 2
    _halving(indices[:middle], run, may_halve=True)
    _halving(indices[middle:], run, may_halve=True)


def _scored(forward: Forward, units: Sequence[Unit], moments: bool = False) -> Iterator[list[Scored]]:
    """Score the answers of some units in one forward."""
    batch = to_device(collate_units(units), forward.device)
    log_probs, predicted, means, variances = forward.statistics(batch, moments)
    # -inf is a token of probability zero, which is legitimate; NaN and +inf are no distribution.
    if bool(torch.isnan(log_probs).any() | (moments and torch.isnan(means).any())):
        raise ModelError("evaluate: a logit is not a number; check the model's weights and dtype")
    hit = predicted == batch["label"]
    counts = [len(answer) for unit in units for answer in unit.predicted]
    columns = [t.cpu().split(counts) for t in (log_probs, hit, predicted, means, variances)]
    answers = (Scored(*(tuple(part.tolist()) for part in parts)) for parts in zip(*columns, strict=True))  # type: ignore[arg-type]
    for unit in units:
        yield [next(answers) for _ in unit.answers]


def hit_rate(forward: Forward, items: Sequence[Encoded], max_tokens: int = 4096) -> float:
    """Return the mean over rows of the share (0-1) of answer tokens that are the arg-max under teacher forcing."""
    total = 0.0
    with forward.evaluating():
        for indices in length_batches([len(item) for item in items], max_tokens):
            batch = to_device(collate([items[i] for i in indices]), forward.device)
            right = (forward.statistics(batch, False).predicted == batch["label"]).float()
            total += float(sequence_mean(right, batch["row"], len(indices)).sum())
    return total / len(items)


def sequence_nll(forward: Forward, items: Sequence[Encoded], description: str, max_tokens: int = 4096) -> list[float]:
    """Return the negative log-likelihood of each answer in nats, summed over its tokens, in fp32 and without dropout."""
    found: dict[int, float] = {}
    with forward.evaluating(), bar(len(items), description) as progress:
        for indices in length_batches([len(item) for item in items], max_tokens):
            batch = to_device(collate([items[i] for i in indices]), forward.device)
            nll = forward.nll(batch, packed=True)
            found.update(zip(indices, sequence_sum(nll, batch["row"], len(indices)).tolist(), strict=True))
            progress.update(len(indices))
    return [found[i] for i in range(len(items))]


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]]) -> list[str]:
    """Return the text of token ids, special tokens included, as the authors' code stores arg-max tokens."""
    return tokenizer.batch_decode([list(row) for row in ids]) if ids else []  # of no rows the library gives one text
