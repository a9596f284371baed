"""The generated text."""

from __future__ import annotations

from scopewise.metrics.needs.base import Need


class Generated(Need):
    """Fills `Answered.generated`: the model's greedy continuation of the prompt, from one pass over all prompts."""

    generates = True
