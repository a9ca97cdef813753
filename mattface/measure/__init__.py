"""Numbers about a swap: identity, pose, expression, landmarks, seam, detail, clipped skin, and errors against a truth.

The protocols are those of the field (FaceForensics++ retrieval; pose as the L2 distance of Euler angles); the network
that gives the embeddings is the caller's choice and must not be one that a method was trained with.
"""

from mattface.measure.faces import (
    expression_difference,
    identity_cosine,
    landmark_shift,
    retrieval,
)
from mattface.measure.perceptual import feature_distance
from mattface.measure.pictures import (
    background_change,
    clipped_share,
    kept_share,
    light_error,
    octave_energy,
    psnr,
    seam_score,
    structure_loss,
)
from mattface.measure.statistics import paired, summary
from mattface.mesh.pose import pose, pose_difference

__all__ = [
    "background_change",
    "clipped_share",
    "expression_difference",
    "feature_distance",
    "identity_cosine",
    "kept_share",
    "landmark_shift",
    "light_error",
    "octave_energy",
    "paired",
    "pose",
    "pose_difference",
    "psnr",
    "retrieval",
    "seam_score",
    "structure_loss",
    "summary",
]
