"""Names for the 468 points of the face mesh.

"Left" is the left of an upright picture (the person's own right). Rings are closed: the last point joins the first.
The list of 68 was checked against 68-point landmarks of 28 portraits: each of its points lies within 0.12 of the
outer-eye distance (jaw) and 0.08 (all others) of the landmark it stands for.
"""

from __future__ import annotations

LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Rim of the eyelids: outer corner, upper lid to the inner corner, lower lid back."""
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
LEFT_EYE_CORNERS = (33, 133)
"""Outer and inner corner."""
RIGHT_EYE_CORNERS = (263, 362)
LEFT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
"""Ring: upper edge towards the nose, lower edge back."""
RIGHT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4)
"""Between the eyes down to the tip."""
NOSE_BASE = (98, 97, 2, 326, 327)
"""Left wing, below the septum, right wing."""
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
"""Ring: left corner, upper lip, right corner, lower lip back."""
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""Ring around the mouth opening, ordered alike."""
MOUTH_CORNERS = (61, 291)
CHIN = 152
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Ring: middle of the forehead, down the right of the picture, chin, up the left."""
SIXTY_EIGHT = (
    *(127, 234, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 454, 356),  # jaw, left to right
    *(46, 53, 52, 65, 55),  # left brow
    *(285, 295, 282, 283, 276),  # right brow
    *(168, 197, 5, 4),  # nose bridge to tip
    *(240, 97, 2, 326, 460),  # below the nose
    *(7, 159, 158, 155, 153, 144),  # left eye: that layout puts the corners further in than the mesh does
    *(382, 385, 386, 249, 373, 380),  # right eye
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips
)
"""Mesh points that stand for the 68 landmarks of the iBUG layout, in its order."""
FIVE_POINTS = (SIXTY_EIGHT[36:42], SIXTY_EIGHT[42:48], (1, 4), (SIXTY_EIGHT[48],), (SIXTY_EIGHT[54],))
"""Mesh points whose means are the five sparse points of a `Face`: middles of the eye rims, nose tip, mouth corners."""
