"""Methods whose network takes one aligned crop and one identity code: alphaface, facechanger, magicmask.

All of them keep one signature, network(target, code, ...) -> picture, which is what engines speed up and exports write.
Letters in shapes: B batch, C channels, H W height and width, S side of a crop, D length of the identity code.
"""
