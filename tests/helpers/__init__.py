"""What several tests use: small models, options of small runs, made-up results, and paths."""
