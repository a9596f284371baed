"""From records to tables. Imports no torch."""
