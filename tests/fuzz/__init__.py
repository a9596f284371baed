"""Bad input by the thousand: made from the schemas by kind, given to the real commands, and judged."""
