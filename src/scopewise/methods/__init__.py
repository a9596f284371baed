"""Unlearning methods: a method is its hyper-parameters plus one function. The table, the base, one file per method."""

METHODS: dict[str, str] = {
    "gradient_ascent": "scopewise.methods.gradient_ascent:GradientAscent",
    "random_labels": "scopewise.methods.random_labels:RandomLabels",
    "adversarial": "scopewise.methods.adversarial:Adversarial",
    "ga_descent": "scopewise.methods.ga_descent:GADescent",
    "ga_descent_general": "scopewise.methods.ga_descent_general:GADescentGeneral",
    "ga_kl": "scopewise.methods.ga_kl:GAKL",
    "ga_kl_general": "scopewise.methods.ga_kl_general:GAKLGeneral",
    "memflex": "scopewise.methods.memflex:MemFlex",
}
"""Name → class of every method that `--method` takes, in the order of the paper's table."""
