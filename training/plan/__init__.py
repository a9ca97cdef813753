"""The plan of a training: what it costs, measured before it begins."""
