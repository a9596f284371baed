"""Training: the trainer, what a step is made of, the terms of its loss, the region it moves."""
