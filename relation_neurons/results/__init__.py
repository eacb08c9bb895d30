"""What a run is (options, manifest, plan) and what it leaves (tables), with verification."""
