"""The playground: one question to target, unlearned model and oracle side by side, on a page of this machine."""
