"""Localizers: which part of the parameters unlearning may change. The table, the base, one file per localizer."""

LOCALIZERS: dict[str, str] = {
    "gradient": "scopewise.localizers.gradient:Gradient",
    "random": "scopewise.localizers.random:Random",
    "all": "scopewise.localizers.all:All",
}
"""Name → class of every localizer that `unlearn.localizer` and `method@localizer` take."""
