"""Load and save models, adapters and their reference, the forward pass at answer positions, and the tiny model."""
