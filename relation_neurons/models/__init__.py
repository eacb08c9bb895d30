"""Load a model by name, folder, GGUF file or object, and check it."""
