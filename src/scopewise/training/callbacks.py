"""Callbacks of the trainer that are independent of unlearning."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class CutBackward(TrainerCallback):
    """With activation checkpointing, ends the backward pass at the lowest trained matrix.

    Re-entrant checkpointing gives no gradients to a block whose input requires none, so LoRA's B would silently stay
    zero. The library therefore makes the embeddings' output require a gradient, which extends the backward pass to the
    first block. It does so for non-re-entrant checkpointing too, our default, which does not need it.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Remove the library's hooks on the embeddings."""
        if args.activation_checkpointing and not args.activation_checkpointing_kwargs["use_reentrant"]:
            model.disable_input_require_grads()
