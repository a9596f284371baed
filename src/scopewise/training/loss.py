"""The loss of a micro-batch: one forward pass, then the method's forget and retain terms."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scopewise import ops
from scopewise.data.batch import Batch, select_rows
from scopewise.errors import ConfigError, ModelError
from scopewise.methods.base import READ_THE_REFERENCE, RETAIN_LOSSES, Answers, BatchLoss, Method
from scopewise.models.flops import count_forward
from scopewise.models.forward import Forward
from scopewise.models.reference import Reference
from scopewise.training.sampler import FORGET_GROUP, PREFERRED_GROUP, REFUSED_GROUP, RETAIN_GROUP, counted


def check_whole_batch(
    method: Method, *, rows: int, wrapped: bool, anchors: bool, splits_terms: bool = False, shared: bool = False
) -> None:
    """Raise ConfigError where a loss of whole micro-batches would be split, or run by several processes.

    Args:
        method: The method.
        rows: Of a micro-batch.
        wrapped: Whether there are wrappers, which compute the two terms separately.
        anchors: Whether there are self-questions or general text among the retain rows, whose loss is KL.
        splits_terms: Whether the terms have different regions.
        shared: Whether several processes share a step, or the model is sharded.
    """
    if not method.whole_batch:
        return
    where = f"unlearn.method: {type(method).__name__}, whose loss is that of whole micro-batches,"
    if wrapped:
        raise ConfigError(f"{where} with a wrapper, which needs a loss of each term; leave the wrapper out")
    if splits_terms:
        raise ConfigError(f"{where} with a region for each term; choose another localizer or region")
    if anchors:
        raise ConfigError(f"{where} with unlearn.expand.retain or retain_data=both, whose rows need KL; leave them out")
    if shared:
        raise ConfigError(f"{where} in several processes, or with FSDP2 or DeepSpeed; use one process without them")
    if rows % 2:
        raise ConfigError(
            f"{where} with batch_size {rows}; a micro-batch is pairs of a forget and a retain row, so it must be even; "
            "change batch_size (per_device_train_batch_size in Python)"
        )


class Loss:
    """Computes the forget and the retain term of a micro-batch, each divided by the whole step's weights.

    Args:
        method: The method.
        layer: Decoder block whose hidden states the method or its retain term needs, or None.
        where: Names rows by their indices, for errors.

    Attributes:
        denominators: Sum of the weights of each term over the step; set before the step's first micro-batch.
        statistics: Those of the method, set before training.
        reference: Returns the model before unlearning; set during training if the method needs it.
        of_batch: The method's own loss of a micro-batch; set during training if it is `whole_batch`.
    """

    def __init__(self, method: Method, layer: int | None, where: Callable[[Sequence[int]], str]) -> None:
        self.method = method
        self.layer = layer
        self.denominators: dict[str, Tensor] = {}
        self.reference: Reference | None = None
        self.statistics: Tensor | None = None
        self.of_batch: BatchLoss | None = None
        self._where = where

    def __call__(self, forward: Forward, inputs: Batch) -> tuple[Tensor, Tensor]:
        """Return both terms; a term without rows in the micro-batch is zero.

        Raises:
            ModelError: a value is not finite; the message names the step, the term and the rows.
        """
        method, group = self.method, inputs["group"]
        if method.whole_batch:
            return self._of_batch(forward, inputs), torch.zeros((), device=group.device)
        groups = (FORGET_GROUP, PREFERRED_GROUP, RETAIN_GROUP, REFUSED_GROUP)
        counts = [int((group == g).sum()) for g in groups]
        # Groups are contiguous (see `Rows.collate`), so a group's tokens are a slice, without a copy.
        starts = [0, *itertools.accumulate(counts)]
        terms = method.retain_terms if counts[2] else ()
        anchored = inputs["anchored"][starts[2] : starts[3]] if terms and "anchored" in inputs else None
        if anchored is not None and bool(anchored.any()):
            terms = (*terms, *(() if "kl" in terms else ("kl",)))
        outputs = self._outputs(forward, inputs, bool(counts[0]), terms)
        forget = retain = torch.zeros((), device=group.device)
        if counts[0]:
            answers = replace(_answers(inputs, starts, FORGET_GROUP, outputs), statistics=self.statistics)
            if counts[1]:
                answers = replace(answers, preferred=_answers(inputs, starts, PREFERRED_GROUP, outputs))
            if "reference_logits" in method.needs:
                answers = replace(answers, reference_logits=self._before(inputs, 0, starts[1])[0])
            if "perturbed_logits" in method.needs:
                perturbed, of_subject = self._perturbed(forward, self._part(inputs, 0, starts[1]))
                answers = replace(answers, perturbed_logits=perturbed, of_subject=of_subject)
            forget = self._share("forget", method.forget_loss(answers), answers, inputs, 0)
        if terms:
            answers = _answers(inputs, starts, RETAIN_GROUP, outputs)
            if counts[3]:
                answers = replace(answers, preferred=_answers(inputs, starts, REFUSED_GROUP, outputs))
            if "kl" in terms and outputs.states is not None:
                states = outputs.states[_tokens(inputs, starts, RETAIN_GROUP)]
                with self._frozen() as frozen:
                    before = frozen.head_inputs(self._part(inputs, starts[2], starts[3]), packed=True)
                answers = replace(answers, kl_of_tokens=forward.kl_of(before, states))
            elif READ_THE_REFERENCE & set(terms):
                layer = self.layer if "hidden" in terms else None
                wanted = bool({"kl", "js"} & set(terms))
                logits, hidden = self._before(inputs, starts[2], starts[3], logits=wanted, layer=layer)
                answers = replace(answers, reference_logits=logits, reference_hidden=hidden)
            values = {term: RETAIN_LOSSES[term](answers) for term in terms}
            if anchored is not None:
                own = torch.stack([values[term] for term in method.retain_terms]).sum(0)
                value = torch.where(anchored, values["kl"], own) if "kl" in values else own
            else:
                value = torch.stack(list(values.values())).sum(0)
            retain = self._share("retain", value, answers, inputs, starts[2])
        return forget, retain

    def _of_batch(self, forward: Forward, inputs: Batch) -> Tensor:
        """Return the method's own loss of a micro-batch, times its share in the step's forget rows."""
        if self.of_batch is None:
            raise ConfigError("compute_loss: this method's loss only exists during train(); call train()")
        forget, retain = (torch.nonzero(inputs["group"] == g).flatten() for g in (FORGET_GROUP, RETAIN_GROUP))
        count_forward(forward.inner, inputs, forward.head)
        with forward.autocast():
            value = self.of_batch(forward.model, select_rows(inputs, forget), select_rows(inputs, retain))
        if not bool(torch.isfinite(value)):
            raise _not_finite("forget", self._where(inputs["index"][forget].tolist()[:5]))
        return value * len(forget) / self.denominators["forget"]

    def _outputs(self, forward: Forward, inputs: Batch, forgets: bool, terms: Sequence[str]) -> _Outputs:
        """Run the forward pass. If no loss reads the logits themselves, use chunked cross-entropy, which keeps none."""
        needs = self.method.needs if forgets else frozenset[str]()
        wants_logits = (forgets and "hidden" not in needs) or bool({"ce", "kl", "js", "ap"} & set(terms))
        chunks = (
            self.layer is None and wants_logits and not needs & {"logits", "reference_logits"} and "js" not in terms
        )
        # Check as if in training, even when nothing is trained: KL applies one lm_head to the states of both models.
        with torch.enable_grad():
            chunks = chunks and forward.chunked
        if chunks:
            states = forward.head_inputs(inputs, packed=True)
            return _Outputs(None, None, states, forward.nll_of(states, inputs["label"].unsqueeze(0)))
        return _Outputs(*forward.outputs(inputs, logits=wants_logits, layer=self.layer))

    def _perturbed(self, forward: Forward, forget: Batch) -> tuple[Tensor, Tensor]:
        """Return logits with noise on the subject, and which labels are tokens of the subject."""
        if "subject" not in forget:
            raise ConfigError(
                "compute_loss: the subject's tokens are found by train(); call train(), or prepare() before"
            )
        subject, seq = forget["subject"], forget["input_ids"].shape[1]
        inside = subject[:, :seq].flatten()  # the states that the model reads
        place = inside.nonzero().flatten()

        def noisy(states: Tensor) -> Tensor:
            noise = self.method.perturbation(int(subject.max()), states.shape[-1]).to(states)
            return states + noise[inside[place].to(states.device) - 1]

        with torch.no_grad(), forward.changed(self.method.perturbed_layer, place, noisy):
            logits = forward.logits(forget)
        return logits, subject[forget["row"], forget["position"] % seq + 1] > 0

    def _before(
        self, inputs: Batch, start: int, stop: int, *, logits: bool = True, layer: int | None = None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return logits and hidden states of the model before unlearning for sequences `start` to `stop`."""
        with self._frozen() as frozen:
            return frozen.outputs(self._part(inputs, start, stop), logits=logits, layer=layer)

    def _frozen(self) -> AbstractContextManager[Forward]:
        if self.reference is None:
            raise ConfigError("compute_loss: the reference model only exists during train(); call train()")
        return self.reference()

    @staticmethod
    def _part(inputs: Batch, start: int, stop: int) -> Batch:
        return select_rows(inputs, torch.arange(start, stop, device=inputs["row"].device))

    def _share(self, term: str, value: Tensor, answers: Answers, inputs: Batch, first: int) -> Tensor:
        if value.shape != (answers.batch,):
            raise ModelError(f"{term} loss: shape {tuple(value.shape)}; a loss must return one value per sequence")
        if not bool(torch.isfinite(value).all()):
            bad = inputs["index"][first : first + answers.batch][~torch.isfinite(value)].tolist()
            raise _not_finite(term, self._where(bad[:5]))
        weight = self.method.weight(ops.token_counts(answers.row, answers.batch))
        weight = weight * counted(inputs)[first : first + answers.batch]
        return (value * weight).sum() / self.denominators[term]


def _not_finite(term: str, where: str) -> ModelError:
    return ModelError(
        f"{term} loss: not finite at {where}; lower the learning rate, or check the model's weights and dtype"
    )


@dataclass(frozen=True)
class _Outputs:
    """Outputs at all answer tokens: logits and hidden states of a layer, or lm_head inputs and chunked NLL."""

    logits: Tensor | None
    hidden: Tensor | None
    states: Tensor | None = None
    nll: Tensor | None = None


def _tokens(inputs: Batch, starts: Sequence[int], group: int) -> slice:
    """Return which of a batch's answer tokens are those of one group."""
    edges = torch.tensor(starts[group : group + 2], device=inputs["row"].device)
    return slice(*torch.searchsorted(inputs["row"], edges).tolist())


def _answers(inputs: Batch, starts: Sequence[int], group: int, outputs: _Outputs) -> Answers:
    """Return the inputs of a loss for one group of sequences."""
    first, last = starts[group], starts[group + 1]
    tokens = _tokens(inputs, starts, group)
    label = inputs["label"][tokens]
    logits, hidden = outputs.logits, outputs.hidden
    if logits is None:
        known = outputs.states if hidden is None else hidden
        assert known is not None
        logits = known.new_empty(len(inputs["label"]), 0)
    return Answers(
        logits=logits[tokens],
        label=label,
        row=inputs["row"][tokens] - first,
        batch=last - first,
        reference_nll=inputs["reference_nll"][first:last] if "reference_nll" in inputs else None,
        hidden=None if hidden is None else hidden[tokens],
        nll_of_tokens=None if outputs.nll is None else outputs.nll[tokens],
    )
