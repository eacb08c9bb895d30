"""Tables and statistics from the effects table, without a model."""
