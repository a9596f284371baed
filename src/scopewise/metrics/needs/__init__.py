"""Needs: inputs of metrics other than the scores of the true answers. The table, the base class, one file per need."""

NEEDS: dict[str, str] = {
    "generated": "scopewise.metrics.needs.generated:Generated",
    "moments": "scopewise.metrics.needs.moments:Moments",
    "paraphrase": "scopewise.metrics.needs.paraphrase:Paraphrase",
    "perturbed": "scopewise.metrics.needs.perturbed:Perturbed",
    "gradient_norm": "scopewise.metrics.needs.gradient_norm:GradientNorm",
    "reference_model": "scopewise.metrics.needs.reference_model:ReferenceModel",
    "entailment_model": "scopewise.metrics.needs.entailment_model:EntailmentModel",
    "fluency_model": "scopewise.metrics.needs.fluency_model:FluencyModel",
    "language_model": "scopewise.metrics.needs.language_model:LanguageModel",
}
"""Name → class of everything that `Metric.needs` takes; judges come after what they judge."""
