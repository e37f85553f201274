"""What lookups cost a convolutional network: top-1 of ResNet-20 on CIFAR-10 for one form after another.

    python -m benchmarks.fit_resnet resnet20_cifar10.onnx --form gain-v3 --form gain-v4 --form plain-v8

Every convolution but the first is replaced, fitted to 2,000 training images without labels, and scored on test images.
Data: CIFAR-10 as JPEG in $LUTC_DATA/cifar10-jpg/{train,test}/<class>/*.jpg (benchmarks/cifar10.py). The compressed
model runs through `lutc.fit.session`: dense parts in ONNX Runtime, lookups in numpy with the same integers as the
operators' function bodies. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from benchmarks import cifar10, recognition
from lutc._ort import ort_session
from lutc.canonicalise import canonicalise
from lutc.fit import fit_model
from lutc.fit.parallel import available_threads
from lutc.fit.session import LookupSession
from lutc.forms import choose_layers
from lutc.load import load_model
from lutc.observe import open_source
from lutc.progress import default_progress


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--form", action="append", help="repeat for several")
    parser.add_argument("--images", type=int, default=2000, help="calibration images")
    parser.add_argument("--test", type=int, default=10000, help="test images")
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    images, labels = cifar10.load_images("test", arguments.test, seed=1)
    training = cifar10.load_images("train", arguments.images, seed=0)[0]
    dense = ort_session(arguments.model, threads=arguments.threads)
    reference = recognition.logits(dense, images)
    result = {
        "images": arguments.images,
        "test": len(images),
        "dense": recognition.metric(recognition.right(reference, labels)),
        "forms": {},
    }
    for form in arguments.form or ["gain-v3", "gain-v4", "plain-v8"]:
        graph = canonicalise(load_model(arguments.model))
        choices = choose_layers(graph, "gain-v4")
        rules = [(f"^{choice.name}$", form) for choice in choices if not choice.form.dense]
        choices = choose_layers(graph, "gain-v4", form=rules)
        begin = time.perf_counter()
        fitted = fit_model(
            graph,
            choices,
            open_source(lambda: cifar10.batches(training)),
            seed=arguments.seed,
            threads=arguments.threads,
            progress=default_progress(),
        )
        seconds = time.perf_counter() - begin
        session = LookupSession(fitted.model, arguments.threads)
        logits = recognition.logits(session, images)
        result["forms"][form] = {
            "top1": recognition.metric(recognition.right(logits, labels)),
            "agreement": float(np.mean(logits.argmax(1) == reference.argmax(1))),
            "fit_seconds": round(seconds, 1),
            "layers": len(fitted.layers),
            "errors": [round(layer.error, 4) for layer in fitted.layers],
        }
        print(form, result["forms"][form], file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
