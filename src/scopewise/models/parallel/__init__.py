"""Several processes: what each does, FSDP2, DeepSpeed."""
