"""Unlearning methods: the table, the base classes, and one file per loss."""

METHODS: dict[str, str] = {
    "gradient_ascent": "scopewise.methods.gradient_ascent:GradientAscent",
    "random_labels": "scopewise.methods.cross_entropy:RandomLabels",
    "adversarial": "scopewise.methods.cross_entropy:Adversarial",
    "ga_descent": "scopewise.methods.gradient_ascent:GADescent",
    "ga_descent_general": "scopewise.methods.gradient_ascent:GADescentGeneral",
    "ga_kl": "scopewise.methods.gradient_ascent:GAKL",
    "ga_kl_general": "scopewise.methods.gradient_ascent:GAKLGeneral",
    "memflex": "scopewise.methods.gradient_ascent:MemFlex",
    "grail": "scopewise.methods.gradient_ascent:GRAIL",
    "npo": "scopewise.methods.npo:NPO",
    "sim_npo": "scopewise.methods.sim_npo:SimNPO",
    "dpo": "scopewise.methods.dpo:DPO",
    "alt_po": "scopewise.methods.dpo:AltPO",
    "relearn": "scopewise.methods.cross_entropy:ReLearn",
    "rmu": "scopewise.methods.rmu:RMU",
    "mcu": "scopewise.methods.rmu:MCU",
    "undial": "scopewise.methods.undial:UNDIAL",
    "wga": "scopewise.methods.weighted_ascent:WGA",
    "sat_imp": "scopewise.methods.weighted_ascent:SatImp",
    "ce_u": "scopewise.methods.ce_u:CEU",
    "pdu": "scopewise.methods.pdu:PDU",
    "blade": "scopewise.methods.blade:BLADE",
    "jens_un": "scopewise.methods.jens_un:JensUn",
    "idk_ap": "scopewise.methods.cross_entropy:IDKAP",
    "me_gd": "scopewise.methods.max_ent:MEGD",
    "per_mu": "scopewise.methods.per_mu:PerMU",
    "max_ent": "scopewise.methods.max_ent:MaxEnt",
    "ihl": "scopewise.methods.ihl:IHL",
    "task_vector": "scopewise.methods.cross_entropy:TaskVector",
    "retrain": "scopewise.methods.cross_entropy:Retrain",
}
"""Name → class of every method that `--method` accepts: first those of the paper's table, in its order."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "Make the forget answers unlikely": (
        *("gradient_ascent", "ga_descent", "ga_descent_general", "ga_kl", "ga_kl_general", "memflex", "grail"),
        *("npo", "sim_npo", "wga", "sat_imp", "ihl", "task_vector"),
    ),
    "Teach other answers": ("random_labels", "adversarial", "dpo", "alt_po", "relearn", "idk_ap", "jens_un"),
    "Change the predicted distribution": ("undial", "ce_u", "pdu", "blade", "me_gd", "max_ent", "per_mu"),
    "Change hidden states": ("rmu", "mcu"),
    "Retrain": ("retrain",),
}
"""Heading → methods under it in `scopewise list methods`; a method that is not named here stands under Others."""
