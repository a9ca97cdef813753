"""The methods by name. A name is the same everywhere: file, registry key, weight prefix, recipe, benchmark row."""

METHODS = {
    "mattface": "mattface.methods.mattface:build",
    "mesh": "mattface.methods.mesh:build",
}
