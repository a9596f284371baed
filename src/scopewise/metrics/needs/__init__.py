"""Needs: inputs of metrics other than the scores of the true answers. The table, the base class, and the needs by origin."""

NEEDS: dict[str, str] = {
    "generated": "scopewise.metrics.needs.scored:Generated",
    "moments": "scopewise.metrics.needs.scored:Moments",
    "paraphrase": "scopewise.metrics.needs.scored:Paraphrase",
    "perturbed": "scopewise.metrics.needs.scored:Perturbed",
    "gradient_norm": "scopewise.metrics.needs.scored:GradientNorm",
    "reference_model": "scopewise.metrics.needs.scored:ReferenceModel",
    "entailment_model": "scopewise.metrics.needs.judged:EntailmentModel",
    "fluency_model": "scopewise.metrics.needs.judged:FluencyModel",
    "language_model": "scopewise.metrics.needs.judged:LanguageModel",
}
"""Name → class of everything that `Metric.needs` takes; judges come after what they judge."""
