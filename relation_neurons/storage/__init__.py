"""Files on disk: written whole, checksummed, locked and resumable. It knows nothing of relations or models."""
