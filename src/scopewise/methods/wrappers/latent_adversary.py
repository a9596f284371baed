"""An adversary in the hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from scopewise.methods.wrappers.base import Gradient, Inner, Parts, Step, Term, Wrapper, add


@dataclass(frozen=True, kw_only=True)
class LatentAdversary(Wrapper):
    """Unlearn while an adversary shifts the hidden states of one layer towards the answers.

        δ ← clip(δ + step_size · sign ∇_δ L_forget(θ, h_l + δ), -epsilon, epsilon),   `steps` times from 0
        gradient of the step = ∇_θ L_forget(θ, h_l + δ) + ∇_θ L_retain(θ)

    h_l is the output of decoder block l; each position of each row has its own δ.

    Choose it with a loss that is larger the more likely an answer is (NPO, gradient ascent): the adversary raises the loss.
    Its main knob is `epsilon`, in units of the hidden states. A step costs `steps` more passes over the forget rows.

    Source: Li et al., arXiv:2602.01703 (AGT). Reference code: TiezMind/AGT-unlearning 7b3b2b0 `AGT.py`.

    Deviations: δ starts at 0 in every step (there it is carried over to other rows), and is not added to the reference.
    The code updates δ only where the gradient norm is below 2, and after 50 steps; here always after `warmup_fraction`.

    Attributes:
        epsilon: Largest absolute entry of δ. Default: the code.
        steps: Number of steps of the adversary. Default: the code.
        step_size: Size of each of these steps. Default: the code.
        layer_fraction: l as a share (0-1) of the depth. Default: the code's block 4 of the 32 of Llama-2-7B.
        warmup_fraction: Share (0-1) of the training before the adversary begins. Default: ours, none.
    """

    epsilon: Annotated[float, Gt(0)] = 0.01
    steps: Annotated[int, Ge(1)] = 4
    step_size: Annotated[float, Gt(0)] = 0.005
    layer_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.1
    warmup_fraction: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    name: ClassVar[str] = "latent_adversary"

    def gradient(self, step: Step, term: Term, parts: Parts, inner: Inner) -> Gradient:
        """Return the forget gradient with the shifted states, one part after the other."""
        if term != "forget" or step.number < self.warmup_fraction * step.count:
            return inner(parts)
        block = step.blocks[round(self.layer_fraction * (len(step.blocks) - 1))]
        total: Gradient = [torch.zeros_like(parameter) for parameter in step.parameters]
        for part in parts:
            shift = Shift()
            with shift.on(block):
                for _ in range(self.steps):
                    loss = step.local_loss(part)
                    (found,) = torch.autograd.grad(loss, shift.value)
                    moved = shift.value.detach() + self.step_size * found.sign()
                    shift.value = moved.clamp(-self.epsilon, self.epsilon).requires_grad_(True)
                shift.value = shift.value.detach()
                total = add(total, inner([part]))
        return total


class Shift:
    """Adds a value to the output of a block; it is made as zeros at the first forward."""

    value: Tensor

    def __init__(self) -> None:
        self._made = False

    def _add(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        if not torch.is_grad_enabled():  # the reference, which may be the same modules
            return output
        states = output[0] if isinstance(output, tuple) else output
        if not self._made:
            self.value = torch.zeros_like(states, requires_grad=True)
            self._made = True
        shifted = states + self.value.to(states.dtype)
        return (shifted, *output[1:]) if isinstance(output, tuple) else shifted

    def on(self, block: nn.Module) -> RemovableHandle:
        """Return a context in which the output of a block is shifted."""
        return block.register_forward_hook(self._add)
