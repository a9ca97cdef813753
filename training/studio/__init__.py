"""The studio: renders swaps whose ground truth is known, from a linear face model and face photographs.

face_model (what a head is) -> fit (a photograph's shape, camera, light) -> texture (its skin without light) -> people
-> render (pictures by a rasteriser on the CPU or in torch) -> triplets (source, target, exact swap) -> shards.

Letters in shapes: N vertices, T triangles, I identity and E expression coefficients, S side of a picture, U side of a
texture layer. Model space: y up, z towards the viewer, x to the right of a picture of an upright face; centimetres.
Colours inside the studio are linear light; 1 is what a white surface sends back under light of mean 1.
"""
