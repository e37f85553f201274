"""Which layers of a model a benchmark replaces by random lookups of one form (`lutc.cost.random_layers`)."""

from __future__ import annotations

import re

import onnx_ir as ir

from lutc.cost.random_layers import projected_groups, randomise
from lutc.forms import Form, LayerChoice, choose_layers

__all__ = ["choose", "projected_groups", "randomise"]


def choose(model: ir.Model, form: str, *, every: bool = False) -> list[LayerChoice]:
    """The layers of a canonical model in one form, where they can take it.

    Args:
        model: Canonical; not changed.
        form: As `lutc.forms.Form` writes it.
        every: All layers, rather than those that the compiler would replace by default.

    Returns:
        One choice per layer of the model; attention is left to the compiler.
    """
    parsed = Form.parse(form)
    if parsed.kind == "int8" and not every:
        return choose_layers(model, "int8")
    wanted = [
        choice.name
        for choice in choose_layers(model)
        if choice.kind != "attention"
        and (every or not choice.form.dense)
        and not (parsed.projection != "none" and choice.kind == "conv")
    ]
    return choose_layers(model, form=[(f"^{re.escape(name)}$", parsed) for name in wanted])
