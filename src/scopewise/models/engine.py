"""The engine: a causal LM with its tokenizer, and the operations that training, evaluation and attacks need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from scopewise.config import DataSection, ModelSection
from scopewise.data.prompt import Encoded, Prompt, encode
from scopewise.data.rows import Row
from scopewise.models import activations, gradients
from scopewise.models.abilities import forward_of
from scopewise.models.architecture import vocabulary_size
from scopewise.models.generate import generate
from scopewise.models.load import load_model, load_tokenizer, revision_of, with_padding
from scopewise.models.parallel.fsdp import shard_model
from scopewise.models.score import Pair, Scored, hit_rate, score_pairs, sequence_nll
from scopewise.models.stream import Token, stream
from scopewise.models.vocabulary import check_rows, check_tokenizer


class Engine:
    """A causal LM with its tokenizer. It finds out at construction, once, what the model supports.

    The model may have an adapter and may be sharded. No method changes it, except that `lend` lets the caller do so. Make
    the engine when the model is complete: with its adapter, in its dtype, on its device or sharded.

    Args:
        model: A causal LM, with or without an adapter.
        tokenizer: Its tokenizer.
        data: Prompt format and maximum length of rows; None for the run file's defaults.
        max_tokens: Padded tokens per batch; halved for what does not fit the device.
        kernels: `auto` or `off`, as the run file's `model.kernels`.
        name: Its name in progress bars.

    Attributes:
        forward: One forward pass over a batch.

    Raises:
        ModelError: not a causal LM, or a tokenizer of another model.

    Example:
        >>> engine = Engine.load("my-model")
        >>> engine.generate([item.prompt_ids for item in engine.encode(rows)])
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        data: DataSection | None = None,
        *,
        max_tokens: int = 4096,
        kernels: Literal["auto", "off"] = "auto",
        name: str = "",
    ) -> None:
        check_tokenizer(model, tokenizer)
        self.model: Any = model
        self.tokenizer = with_padding(tokenizer)
        self.data, self.max_tokens, self.name = data or DataSection(), max_tokens, name
        self.forward = forward_of(model, kernels)

    @staticmethod
    def load(
        path: str | Path,
        section: ModelSection | None = None,
        data: DataSection | None = None,
        *,
        max_tokens: int = 4096,
        name: str = "",
        revision: str | None = None,
    ) -> Engine:
        """Load a model or an adapter for evaluation, onto this process's device or sharded over all processes.

        Args:
            path: Folder or hub name.
            section: How to load it (the run file's `model` section); None: as it is stored.
            data: As in `Engine`.
            max_tokens: As in `Engine`.
            name: As in `Engine`.
            revision: Of a hub name; None takes the section's, for the section's own path.

        Raises:
            ModelError: it cannot be loaded; as `load_model`.
        """
        section = section or ModelSection()
        model = shard_model(load_model(path, section, revision))
        tokenizer = load_tokenizer(path, revision or revision_of(path, section))
        return Engine(model, tokenizer, data, max_tokens=max_tokens, kernels=section.kernels, name=name)

    @property
    def prompt(self) -> Prompt:
        """The format of the model's prompts."""
        return Prompt.of(self.data)

    @property
    def vocab_size(self) -> int:
        """Number of tokens that both the model and the tokenizer have."""
        return min(len(self.tokenizer), vocabulary_size(self.model))

    # -- rows ---------------------------------------------------------------------------------------------------------

    def encode(
        self,
        rows: Sequence[Row],
        *,
        eos: bool = False,
        over_length: Literal["error", "drop"] | None = None,
        begun: str = "",
    ) -> list[Encoded]:
        """Tokenise rows as `scopewise.data.prompt.encode` does, by the engine's data settings.

        Args:
            rows: What to tokenise.
            eos: Append the end-of-sequence token to the answer.
            over_length: What happens to rows that are too long; None takes the data settings'.
            begun: Beginning of the reply that counts as prompt.

        Raises:
            DataError: rows that do not fit the length.
        """
        data = self.data
        over = over_length or data.over_length
        return encode(rows, self.tokenizer, self.prompt, data.max_length, eos=eos, over_length=over, begun=begun)

    def check(self, items: Iterable[Encoded]) -> None:
        """Raise ModelError if rows have tokens without an embedding, or more tokens than the model has learned positions."""
        check_rows(self.model, self.tokenizer, items)

    # -- passes -------------------------------------------------------------------------------------------------------

    def score(
        self, pairs: Sequence[Pair], what: str = "score", *, moments: bool = True, share_prompts: bool = True
    ) -> list[Scored]:
        """Score answers under teacher forcing; as `score_pairs`."""
        forward, bar = self.forward, self._bar(what)
        return score_pairs(forward, pairs, self.max_tokens, bar, moments=moments, share_prompts=share_prompts)

    def hit_rate(self, items: Sequence[Encoded]) -> float:
        """Return the mean over rows of the share (0-1) of answer tokens that are the arg-max under teacher forcing."""
        return hit_rate(self.forward, items, self.max_tokens)

    def sequence_nll(self, items: Sequence[Encoded], what: str = "score") -> list[float]:
        """Return the negative log-likelihood of each answer in nats, summed over its tokens."""
        return sequence_nll(self.forward, items, self._bar(what), self.max_tokens)

    def generate(
        self,
        prompts: Sequence[tuple[int, ...]],
        max_new_tokens: int = 64,
        what: str = "generate",
        *,
        temperature: float = 0.0,
        samples: int = 1,
        seed: int = 0,
    ) -> list[list[str]]:
        """Continue prompts; as `scopewise.models.generate.generate`."""
        how: dict[str, Any] = {"temperature": temperature, "samples": samples, "seed": seed}
        bar = self._bar(what)
        return generate(self.forward, self.tokenizer, prompts, max_new_tokens, description=bar, **how)

    def stream(
        self,
        prompt: tuple[int, ...],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        others: int = 3,
    ) -> Iterator[Token]:
        """Continue one prompt, a token per `next`; as `scopewise.models.stream.stream`."""
        how: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "seed": seed, "others": others}
        return stream(self.forward, self.tokenizer, prompt, max_new_tokens, **how)

    def mean_gradients(self, items: Sequence[Encoded], what: str, **how: Any) -> dict[str, Tensor]:
        """Return the gradient of the loss on each matrix, averaged over rows; `how` as in `gradients.mean_gradients`."""
        return gradients.mean_gradients(self.forward, items, self.max_tokens, what, **how)

    def mean_squared_gradients(self, items: Sequence[Encoded], what: str) -> dict[str, Tensor]:
        """Return the diagonal Fisher of each matrix; as `gradients.mean_squared_gradients`."""
        return gradients.mean_squared_gradients(self.forward, items, self.max_tokens, what)

    def mean_activations(self, items: Sequence[Encoded], what: str) -> dict[str, Tensor]:
        """Return the mean absolute input of each linear layer; as `activations.mean_activations`."""
        return activations.mean_activations(self.forward, items, self.max_tokens, what)

    def gradient_norms(self, pairs: Sequence[Pair]) -> dict[Pair, float]:
        """Return the mean gradient norm of each answer's NLL; as `gradients.gradient_norms`."""
        return gradients.gradient_norms(self.forward, pairs, self.name)

    # -- weights ------------------------------------------------------------------------------------------------------

    @contextmanager
    def lend(self) -> Iterator[Any]:
        """Let the caller change the model in the context, and restore its weights afterwards from copies on the CPU."""
        kept = {name: p.detach().to("cpu", copy=True) for name, p in self.model.named_parameters()}
        flags = {name: p.requires_grad for name, p in self.model.named_parameters()}
        training = self.model.training
        try:
            yield self.model
        finally:
            self.model.train(training)
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.requires_grad_(flags[name])
                    parameter.copy_(kept[name])

    def _bar(self, what: str) -> str:
        return f"{self.name}: {what}" if self.name else what
