"""Facts, templates, and the prompts made of them. Nothing here imports torch."""
