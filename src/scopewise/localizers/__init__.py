"""Localizers choose the parameters that unlearning may change. The table, the base class, one file per localizer."""

LOCALIZERS: dict[str, str] = {
    "gradient": "scopewise.localizers.gradient:Gradient",
    "weight_attribution": "scopewise.localizers.weight_attribution:WeightAttribution",
    "grail": "scopewise.localizers.grail:Grail",
    "fisher_ratio": "scopewise.localizers.fisher_ratio:FisherRatio",
    "activation_ratio": "scopewise.localizers.activation_ratio:ActivationRatio",
    "named": "scopewise.localizers.named:Named",
    "random": "scopewise.localizers.random:Random",
    "all": "scopewise.localizers.all:All",
}
"""Name → class of every localizer that `unlearn.localizer` and `method@localizer` accept."""
