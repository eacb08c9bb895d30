"""The whole run, stage by stage, and the comparison of criteria."""
