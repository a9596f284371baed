"""Tables, figures and pages from the records of a run. Imports no torch."""
