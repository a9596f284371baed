"""Measures: a metric is one function of what a model made of some rows. The table, the base, one file per metric."""

METRICS: dict[str, str] = {
    "unlearn_success": "scopewise.metrics.unlearn_success:UnlearnSuccess",
    "retention_success": "scopewise.metrics.retention_success:RetentionSuccess",
    "average_success": "scopewise.metrics.average_success:AverageSuccess",
    "perplexity": "scopewise.metrics.perplexity:Perplexity",
    "rouge_l_teacher_forced": "scopewise.metrics.rouge_l_teacher_forced:RougeLTeacherForced",
    "rouge_l_generated": "scopewise.metrics.rouge_l_generated:RougeLGenerated",
}
"""Name → class of every metric that `evaluate.metrics` takes. General ability (lm-evaluation-harness) is to join them."""
