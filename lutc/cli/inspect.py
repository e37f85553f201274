"""`lutc inspect`: what is in an artifact, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lutc.cli.common import Json, emit, human, megabytes, table
from lutc.inspect import read_artifact, verify


def command(
    model: Annotated[Path, typer.Argument(metavar="OUT.lut", help="The compiled model.")],
    layers: Annotated[bool, typer.Option("--layers", help="One row for each linear or convolution layer.")] = False,
    check: Annotated[bool, typer.Option("--verify", help="Check hash, sizes, ranges and every step.")] = False,
    json: Json = False,
) -> None:
    """Show what a compiled model holds."""
    artifact = read_artifact(model)
    if check:
        verify(model)
    summary = artifact.summary()
    if check:
        summary["verified"] = True
    if layers:
        summary["layers"] = artifact.layers
    out = human(json)
    out.print(
        f"{artifact.path}: {megabytes(artifact.bytes)}, {artifact.producer}, tables for {artifact.target}", markup=False
    )
    for kind in ("inputs", "outputs"):
        for port in summary[kind]:
            out.print(f"  {kind[:-1]:<6} {port['name']}: {port['dtype']} {port['shape']}", markup=False)
    out.print(
        f"  {summary['steps']} steps, {summary['lookup_layers']} lookup and {summary['dense_layers']} dense layers "
        f"({summary['int8_layers']} in int8)"
    )
    if summary["tables_made_at_load"]:
        out.print(
            f"  {summary['tables_made_at_load']} tables are stored as factors and made at load: "
            f"{megabytes(summary['expanded_bytes'])} of memory"
        )
    if layers:
        out.print(layer_table(artifact.layers))
    if check:
        out.print(f"  hash {artifact.hash}: verified")
    if json:
        emit(summary)


def layer_table(layers: list[dict[str, Any]]) -> Any:
    """The layers of a report as a table for people."""
    rows = [
        [
            layer["name"],
            layer["op"],
            layer["form"],
            _groups(layer.get("group_sizes") or []),
            layer.get("codebooks") or "",
            layer.get("rank") or "",
            megabytes(layer.get("bytes") or 0),
            _expanded(layer),
            "" if layer.get("error") is None else f"{layer['error']:.4f}",
        ]
        for layer in layers
    ]
    return table("", ["layer", "op", "form", "groups", ">codebooks", ">rank", ">size", ">in memory", ">error"], rows)


def _expanded(layer: dict[str, Any]) -> str:
    """The layer's size once its table is made, where that differs from what is stored."""
    expanded = layer.get("bytes_expanded")
    return "" if expanded in (None, layer.get("bytes")) else megabytes(expanded)


def _groups(sizes: list[int]) -> str:
    """`[3, 3, 3, 2]` as `3x3 2x1`: sizes, each with how many."""
    return " ".join(f"{size}x{sizes.count(size)}" for size in sorted(set(sizes), reverse=True))
