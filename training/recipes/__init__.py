"""Recipes: one module per trained network with `recipe()`, one complete frozen configuration, and `tiny()`, the same at
a size that a processor trains in a minute (the networks that stand in for those of its losses are named there too).
"""

from __future__ import annotations

RECIPES = {
    "mattface": "mattface.training.recipes.mattface",
    "mattface-demo": "mattface.training.recipes.mattface_demo",
    "alphaface": "mattface.training.recipes.alphaface",
    "alphaface-demo": "mattface.training.recipes.alphaface_demo",
    "alphaface-paper": "mattface.training.recipes.alphaface_paper",
    "facechanger": "mattface.training.recipes.facechanger",
    "magicmask": "mattface.training.recipes.magicmask",
    "generator": "mattface.training.recipes.generator",
    "encoder-generator": "mattface.training.recipes.encoder_generator",
    "visible-face": "mattface.training.recipes.visible_face",
}
"""Recipe name -> module, imported only when it is asked for."""
