"""Attacks that try to recover forgotten knowledge: the table, the base class, and one file per family."""

ATTACKS: dict[str, str] = {
    "question": "scopewise.attacks.asking:Question",
    "relearning": "scopewise.attacks.relearning:Relearning",
    "relearning_speed": "scopewise.attacks.relearning:RelearningSpeed",
    "quantization": "scopewise.attacks.quantization:Quantization",
    "prompts": "scopewise.attacks.prompts:Prompts",
    "best_of": "scopewise.attacks.asking:BestOf",
    "indirect": "scopewise.attacks.indirect:Indirect",
    "suffix": "scopewise.attacks.suffix:Suffix",
    "few_shot": "scopewise.attacks.asking:FewShot",
    "multiple_choice": "scopewise.attacks.indirect:MultipleChoice",
    "reverse_query": "scopewise.attacks.indirect:ReverseQuery",
    "sampling": "scopewise.attacks.asking:Sampling",
    "extraction": "scopewise.attacks.asking:Extraction",
    "membership": "scopewise.attacks.membership:Membership",
    "detectability": "scopewise.attacks.membership:Detectability",
    "logit_lens": "scopewise.attacks.states:LogitLens",
    "probe": "scopewise.attacks.states:Probe",
    "patching": "scopewise.attacks.states:Patching",
    "pruning": "scopewise.attacks.weights:Pruning",
    "noise": "scopewise.attacks.weights:Noise",
    "merging": "scopewise.attacks.weights:Merging",
}
"""Name → class of every attack, in the order of tables."""
