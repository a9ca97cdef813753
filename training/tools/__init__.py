"""Programs that are used now and then: weights between two checkpoints, the layout of the face mesh."""
