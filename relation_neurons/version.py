"""The version, in one place: `pyproject.toml` reads it here, and so does every manifest."""

__version__ = "0.2.0"
