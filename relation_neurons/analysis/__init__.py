"""Tables and statistics from the effects table; no model is needed."""
