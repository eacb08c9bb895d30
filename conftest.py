"""What is not collected: scripts that tests start by themselves, and the other TransformerLens's module."""

from importlib.metadata import version

collect_ignore = ["tests/programs"]
other = (
    ("hooked_transformer", "hooked_transformer_configs")
    if int(version("transformer_lens").split(".")[0]) >= 4
    else ("transformer_bridge",)
)
collect_ignore += [f"relation_neurons/backends/{name}.py" for name in other]
