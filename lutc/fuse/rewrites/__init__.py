"""Rewrites of the plan, one a file; each takes a plan, changes it in place and leaves its meaning as it was."""

from __future__ import annotations

from collections.abc import Callable

from lutc.fuse.rewrites.activation import fuse_activation
from lutc.fuse.rewrites.add_layer_normalization import fuse_add_layer_normalization
from lutc.fuse.rewrites.constants import dedupe_constants, drop_unused
from lutc.fuse.rewrites.encode import share_encodes
from lutc.fuse.rewrites.guarded_attention import guard_attention
from lutc.fuse.rewrites.linear import linear_from_mat_mul
from lutc.fuse.rewrites.packed_attention import pack_attention
from lutc.fuse.rewrites.project import fold_projections
from lutc.fuse.rewrites.residual import fuse_residual
from lutc.fuse.rewrites.silu import recognise_silu
from lutc.plan import Plan

# Order matters: a residual is added after an activation (or, in a convolution, before it), and an Add that feeds a
# LayerNormalization belongs to that.
REWRITES: list[Callable[[Plan], None]] = [
    dedupe_constants,
    fold_projections,
    share_encodes,
    linear_from_mat_mul,
    recognise_silu,
    fuse_activation,
    fuse_add_layer_normalization,
    fuse_residual,
    guard_attention,
    pack_attention,
    drop_unused,
]
