"""Running a model over prompts: batches, forward passes, logits and recall."""
