"""The models that the benchmarks time: where each comes from, what it is fed, its PyTorch form where there is one.

Exports are made once and kept in build/benchmarks.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import data_folder, made_once
from tests.models import export_encoder, export_minilm, minilm_folder

WORK = Path("build/benchmarks")
"""Where exports, quantised models and artifacts are kept."""

Feed = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model to time.

    Attributes:
        name: As rows call it.
        shape: Of the input, "1x128" for batch 1 and 128 tokens.
        find: Makes or finds the ONNX file; raises FileNotFoundError or ImportError where that is impossible.
        feed: Inputs by name.
        module: The same network in PyTorch, called with the feed's arrays by name; None where there is none.
        transformer: Whether it is one.
    """

    name: str
    shape: str
    find: Callable[[], Path]
    feed: Feed
    module: Callable[[], Any] | None = None
    transformer: bool = False


def write_onnx(network: Any, inputs: tuple[Any, ...], path: Path, **names: Any) -> None:
    """Writes a PyTorch module as ONNX, opset 17; `names` as torch.onnx.export takes them."""
    import torch

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, inputs, str(path), dynamo=False, opset_version=17, **names)


def token_feed(tokens: int, vocabulary: int = 30000) -> Feed:
    """One text of `tokens` random tokens, nothing masked: int64 [1, tokens]."""
    ids = np.random.default_rng(0).integers(5, vocabulary, (1, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def bert_encoder(layers: int = 12) -> Any:
    """A transformers BertModel with its default (base) sizes, without pooler, random weights of a fixed seed."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(num_hidden_layers=layers, attn_implementation="sdpa")
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def _export_layers(path: Path, layers: int, tokens: int) -> None:
    """The bare encoder layers of BERT-base: `hidden` float32 [1, tokens, 768] in, `output` alike out."""
    import torch

    example = torch.zeros(1, tokens, 768)
    write_onnx(bert_encoder(layers).encoder, (example,), path, input_names=["hidden"], output_names=["output"])


def _minilm_module() -> Any:
    import transformers

    return transformers.AutoModel.from_pretrained(minilm_folder(), attn_implementation="sdpa").eval()


def _hidden_feed(tokens: int) -> Feed:
    return {"hidden": np.random.default_rng(0).standard_normal((1, tokens, 768)).astype(np.float32)}


def _image_feed(name: str, height: int, width: int) -> Feed:
    return {name: np.random.default_rng(0).standard_normal((1, 3, height, width)).astype(np.float32)}


def minilm(tokens: int = 128) -> Network:
    """all-MiniLM-L6-v2: 6 layers, 384 features."""
    find = functools.partial(made_once, WORK / "minilm.onnx", export_minilm)
    return Network("minilm", f"1x{tokens}", find, token_feed(tokens), _minilm_module, True)


def bert_base(tokens: int = 128) -> Network:
    """BERT-base: 12 layers, 768 features, random weights."""

    def make(path: Path) -> None:
        export_encoder(bert_encoder(), path, "torchscript", token_types=True)

    find = functools.partial(made_once, WORK / "bert-base.onnx", make)
    return Network("bert-base", f"1x{tokens}", find, token_feed(tokens), bert_encoder, True)


def six_layers(tokens: int = 64) -> Network:
    """Six encoder layers of BERT-base without embeddings: the headline setting of LUT-NN."""
    make = functools.partial(_export_layers, layers=6, tokens=tokens)
    find = functools.partial(made_once, WORK / f"bert-six-layers-{tokens}.onnx", make)
    return Network("bert-six-layers", f"1x{tokens}", find, _hidden_feed(tokens), lambda: bert_encoder(6).encoder, True)


def resnet20() -> Network:
    """ResNet-20 for CIFAR-10."""
    find = functools.partial(data_folder, "onnx", "resnet-cifar10", "resnet20_cifar10.onnx")
    return Network("resnet20", "1x3x32x32", find, _image_feed("input", 32, 32))


def ultraface() -> Network:
    """Face detection on 320 x 240 images."""
    find = functools.partial(data_folder, "onnx", "ultraface", "models", "onnx", "version-RFB-320_simplified.onnx")
    return Network("ultraface", "1x3x240x320", find, _image_feed("input", 240, 320))


def every_network() -> Sequence[Network]:
    """Those of `python -m benchmarks.models`."""
    return (minilm(), bert_base(), six_layers(), resnet20(), ultraface())
