"""Jensen-Shannon unlearning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from scopewise.data.prompt import Encoded
from scopewise.errors import ConfigError
from scopewise.methods.base import Answers, LossInput, Method
from scopewise.models.engine import Engine
from scopewise.ops import Reduction, token_js_to_label


@dataclass(frozen=True, kw_only=True)
class JensUn(Method):
    """Train the forget answers towards repeated "No Idea" by a bounded divergence (JSD), which also keeps retain answers.

        L = mean_t JSD(P(· | x, y_<t) ‖ 1[c_t]) + mean_t JSD(P_ref ‖ P),   c_t the tokens of `text` in turn

    The second mean is over the retain answers. Both terms are between 0 and ln 2.

    Choose it for training of many epochs: both terms are bounded. Its main knob, `text`, is what the model says instead.

    Source: Singh et al., arXiv:2509.02820. Reference code: nmndeep/JensUn-Unlearning 9d0cfd5 `jensun_multitok_loss`,
    `jensun_retain_loss`.

    Deviations: the code clamps probabilities to at least 1e-9, ours does not. The authors also train on paraphrases of the
    forget rows; here `unlearn.expand.paraphrases` does, with those that the data has.

    Attributes:
        text: The text whose tokens, repeated, are the labels. Default: the code.
        retain: Default: the code.
    """

    text: str = " No Idea"
    retain: str = "js"

    reduction: ClassVar[Reduction] = Reduction.TOKEN_MEAN
    needs: ClassVar[frozenset[LossInput]] = frozenset({"nll"})

    def relabel(self, items: Sequence[Encoded], engine: Engine, seed: int) -> list[tuple[int, ...]]:
        """Return the tokens of `text`, repeated to the length of each answer. Raises ConfigError if it has none."""
        tokens = engine.tokenizer(self.text, add_special_tokens=False)["input_ids"]
        if not tokens:
            raise ConfigError(f"unlearn.method_args.text: {self.text!r}; no token; write a word")
        return [tuple(islice(cycle(tokens), len(item.answer_ids))) for item in items]

    def forget_loss(self, answers: Answers) -> Float[Tensor, "batch"]:
        """Return each answer's mean divergence from the repeated text, 0 to ln 2."""
        return answers.mean(token_js_to_label(answers.token_nll()))
