"""Attacks that try to recover forgotten knowledge: the table, the base class, and one file per attack."""

ATTACKS: dict[str, str] = {
    "question": "scopewise.attacks.question:Question",
    "relearning": "scopewise.attacks.relearning:Relearning",
    "relearning_speed": "scopewise.attacks.relearning:RelearningSpeed",
    "quantization": "scopewise.attacks.quantization:Quantization",
    "prompts": "scopewise.attacks.prompts:Prompts",
    "best_of": "scopewise.attacks.best_of:BestOf",
    "indirect": "scopewise.attacks.indirect:Indirect",
    "suffix": "scopewise.attacks.suffix:Suffix",
    "few_shot": "scopewise.attacks.few_shot:FewShot",
    "multiple_choice": "scopewise.attacks.multiple_choice:MultipleChoice",
    "reverse_query": "scopewise.attacks.reverse_query:ReverseQuery",
    "sampling": "scopewise.attacks.sampling:Sampling",
    "extraction": "scopewise.attacks.extraction:Extraction",
    "membership": "scopewise.attacks.membership:Membership",
    "detectability": "scopewise.attacks.detectability:Detectability",
    "logit_lens": "scopewise.attacks.logit_lens:LogitLens",
    "probe": "scopewise.attacks.probe:Probe",
    "patching": "scopewise.attacks.patching:Patching",
    "pruning": "scopewise.attacks.pruning:Pruning",
    "noise": "scopewise.attacks.noise:Noise",
    "merging": "scopewise.attacks.merging:Merging",
}
"""Name → class of every attack, in the order of tables."""
