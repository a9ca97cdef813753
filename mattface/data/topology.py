"""Names for the 468 points of the face mesh. "Left" is the left of the picture, as the person is seen."""

from __future__ import annotations

LEFT_EYE_CORNERS = (33, 133)
"""Outer and inner corner."""
RIGHT_EYE_CORNERS = (263, 362)
LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Rim of the eyelids: outer corner, upper lid to the inner corner, lower lid back."""
RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
MOUTH_CORNERS = (61, 291)
NOSE_TIP = 1
FIVE_POINTS = (LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS, (NOSE_TIP,), (MOUTH_CORNERS[0],), (MOUTH_CORNERS[1],))
"""Mesh points whose means are the five sparse points of a `Face`."""
