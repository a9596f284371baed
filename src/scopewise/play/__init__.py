"""The playground: ask target, unlearned model and oracle the same question, on a local web page."""
