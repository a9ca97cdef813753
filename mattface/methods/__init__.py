"""The methods by name. A name is the same everywhere: file, registry key, weight prefix, recipe, benchmark row."""

METHODS = {
    "alphaface": "mattface.realtime.methods.alphaface:build",
    "alphaface-paper": "mattface.realtime.methods.alphaface_paper:build",
    "facechanger": "mattface.realtime.methods.facechanger:build",
    "inswapper": "mattface.methods.inswapper:build",
    "magicmask": "mattface.realtime.methods.magicmask:build",
    "mattface": "mattface.methods.mattface:build",
    "mesh": "mattface.methods.mesh:build",
}
