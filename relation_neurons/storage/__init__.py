"""Files on disk: written whole, checksummed, locked and resumable; nothing of relations or models."""
