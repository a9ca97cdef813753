"""What recipes train: networks and phases. A recipe's `task` names a module here, which has

    stages(recipe, data, device, fallback=None) -> Iterator[Stage]

with `data` a `mattface.training.config.Data`. A method that trains otherwise (by diffusion, say) adds a module
with such a function and nothing else.
"""
