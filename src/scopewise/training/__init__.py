"""Training: the trainer, sampler and collator, the loss, and the region that is trained."""
