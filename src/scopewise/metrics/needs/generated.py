"""The text that the model writes."""

from __future__ import annotations

from scopewise.metrics.needs.base import Need


class Generated(Need):
    """`Answered.generated`: what the model writes after the prompt, greedily, in the one pass over all prompts."""

    generates = True
