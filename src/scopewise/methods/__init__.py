"""Unlearning methods: the table, the base class, and one file per method."""

METHODS: dict[str, str] = {
    "gradient_ascent": "scopewise.methods.gradient_ascent:GradientAscent",
    "random_labels": "scopewise.methods.random_labels:RandomLabels",
    "adversarial": "scopewise.methods.adversarial:Adversarial",
    "ga_descent": "scopewise.methods.ga_descent:GADescent",
    "ga_descent_general": "scopewise.methods.ga_descent_general:GADescentGeneral",
    "ga_kl": "scopewise.methods.ga_kl:GAKL",
    "ga_kl_general": "scopewise.methods.ga_kl_general:GAKLGeneral",
    "memflex": "scopewise.methods.memflex:MemFlex",
    "grail": "scopewise.methods.grail:GRAIL",
    "npo": "scopewise.methods.npo:NPO",
    "sim_npo": "scopewise.methods.sim_npo:SimNPO",
    "dpo": "scopewise.methods.dpo:DPO",
    "alt_po": "scopewise.methods.alt_po:AltPO",
    "relearn": "scopewise.methods.relearn:ReLearn",
    "rmu": "scopewise.methods.rmu:RMU",
    "undial": "scopewise.methods.undial:UNDIAL",
    "wga": "scopewise.methods.wga:WGA",
    "sat_imp": "scopewise.methods.sat_imp:SatImp",
    "ce_u": "scopewise.methods.ce_u:CEU",
    "pdu": "scopewise.methods.pdu:PDU",
    "blade": "scopewise.methods.blade:BLADE",
    "task_vector": "scopewise.methods.task_vector:TaskVector",
}
"""Name → class of every method that `--method` accepts: first those of the paper's table, in its order."""
