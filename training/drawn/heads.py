"""Features and known codes -> `CodeHeads`, by reduced-rank ridge regression."""

from __future__ import annotations

import torch

from mattface.code_heads import CodeHeads
from mattface.errors import UsageError

RIDGE = 0.8
"""Over the people; features are standardised and divided by the root of their number. Chosen on people left out."""
RANK = 192
ROUNDS = 4
"""Of the randomised decomposition."""


def fit_heads(features: torch.Tensor, codes: torch.Tensor, average: torch.Tensor, rank: int = RANK) -> CodeHeads:
    """The best linear map of a rank from features to codes.

    With Z the standardised features and Y the offsets, ridge regression in its dual form gives the fit
    P = Z Z^T (Z Z^T + RIDGE)^-1 Y; the first right singular vectors V of P are the output, Z^T (...)^-1 Y V the input.

    Args:
        features: (N, K) of `flatten_features`.
        codes: (N, L, D) exact codes.
        average: (D,) average style.
        rank: at most N.

    Raises:
        UsageError: fewer people than the rank, or shapes that do not belong together.
    """
    if len(features) < rank or len(features) != len(codes):
        raise UsageError(f"heads of rank {rank} need as many people and codes; got {len(features)} and {len(codes)}.")
    width = features.shape[1] ** 0.5
    mean, std = features.mean(0), features.std(0) + 1e-3
    z = (features - mean) / std / width
    offsets = codes - average
    middle = offsets.mean(0)
    gram = z @ z.t()
    dual = torch.linalg.solve(gram + RIDGE * torch.eye(len(z)), (offsets - middle).flatten(1))
    _, _, v = torch.svd_lowrank(gram @ dual, q=min(rank + 64, len(z)), niter=ROUNDS)
    v = v[:, :rank]
    heads = CodeHeads(features.shape[1], rank, *codes.shape[1:])
    state = {"mean": mean, "std": std, "w_avg": average, "project.weight": (z.t() @ (dual @ v)).t() / width}
    heads.load_state_dict(state | {"expand.weight": v, "expand.bias": middle.flatten()})
    return heads


def explained(heads: CodeHeads, features: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """(L,) share of the variance of every style that heads explain on people they were not fitted to."""
    with torch.no_grad():
        found = heads.from_vector(features)
    error, whole = (x.square().sum((0, 2)) for x in (found - codes, codes - heads.w_avg))
    return 1 - error / whole
