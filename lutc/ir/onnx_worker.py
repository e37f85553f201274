"""The child process that runs onnx's C++ code on a model: `onnx_worker.py check|convert:N` over stdin and stdout.

Kept free of lutc imports: it is run as a file. Exit 0: the resulting model is on stdout. Exit 3: stderr says what is
wrong with the model. Anything else: onnx itself broke.
"""

import sys


def main() -> int:
    """Reads a ModelProto, does the task, writes the ModelProto."""
    import onnx

    task = sys.argv[1]
    try:
        model = onnx.load_model_from_string(sys.stdin.buffer.read())
        if task == "check":
            onnx.checker.check_model(model)
            model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=False)
        else:
            model = onnx.version_converter.convert_version(model, int(task.partition(":")[2]))
    except Exception as error:
        sys.stderr.write(str(error).strip() or type(error).__name__)
        return 3
    sys.stdout.buffer.write(model.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
