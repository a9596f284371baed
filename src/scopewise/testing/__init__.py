"""Properties that every method, localizer, metric, attack and benchmark must have: for our tables, and for plugins."""
