"""Which neurons detect a relation, by which criterion, and how far to trust it."""
