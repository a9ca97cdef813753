"""Training data: what lies in a folder, how it becomes batches, and `mattface data prepare`."""
