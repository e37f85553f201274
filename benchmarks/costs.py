"""Operations that a transformer's layers take, dense and by lookups, counted as the literature on lookups counts them.

A multiplication and an addition are an operation each; a lookup is one addition; encoding compares with all entries.
Normalisations, activations and softmax, the same on both sides, are left out, which favours neither.
"""

from __future__ import annotations

from collections.abc import Sequence

from lutc.forms import LayerChoice


def linear(rows: int, features: int, outputs: int) -> int:
    """Operations of a dense linear layer."""
    return 2 * rows * features * outputs


def lookups(rows: int, features: int, outputs: int, width: int, entries: int = 16) -> int:
    """Operations of the same layer by plain lookups: scores of all entries, and one addition a codebook and output."""
    return 2 * rows * features * entries + rows * -(-features // width) * outputs


def attention(tokens: int, features: int) -> int:
    """Operations of the two products of attention over all heads."""
    return 2 * 2 * tokens * tokens * features


def total(choices: Sequence[LayerChoice], tokens: int, *, dense: bool) -> int:
    """Operations of all linear layers and attentions of an encoder.

    Args:
        choices: Of its layers; forms are fp32, int8 or plain.
        tokens: Of one text.
        dense: Count every layer as dense, whatever its form.
    """
    count = 0
    for choice in choices:
        if choice.kind == "attention":
            count += attention(tokens, choice.D or choice.N)
        elif dense or choice.form.dense:
            count += linear(tokens, choice.D, choice.N)
        elif choice.form.kind == "plain" and choice.form.projection == "none":
            count += lookups(tokens, choice.D, choice.N, choice.form.width, choice.form.entries)
        else:
            raise ValueError(f"{choice.form}: operations of this form are not counted")
    return count
