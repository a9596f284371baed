"""Wrappers: what may be put around any loss, as in `npo+sam`. The table, the base, one file per kind."""

WRAPPERS: dict[str, str] = {
    "sam": "scopewise.methods.wrappers.sam:SAM",
    "inner_relearning": "scopewise.methods.wrappers.inner_relearning:InnerRelearning",
    "latent_adversary": "scopewise.methods.wrappers.latent_adversary:LatentAdversary",
    "fo_zo": "scopewise.methods.wrappers.fo_zo:FOZO",
    "conflict_projection": "scopewise.methods.wrappers.conflict_projection:ConflictProjection",
    "weight_distance": "scopewise.methods.wrappers.weight_distance:WeightDistance",
    "repselect": "scopewise.methods.wrappers.repselect:RepSelect",
    "reset": "scopewise.methods.wrappers.reset:Reset",
    "noise": "scopewise.methods.wrappers.noise:Noise",
    "undo": "scopewise.methods.wrappers.noise:UNDO",
}
"""Name → class of every wrapper that may follow a method's name after `+`."""
