"""Export a PyTorch ViT (a file with `build()` and a state dict) to ONNX with a dynamic batch.

python benchmarks/export_cifar_vit.py --model model.py --weights weights.pth -o cifar_vit.onnx [--legacy]
"""

from __future__ import annotations

import argparse
import importlib.util
import sys

import torch


def main() -> None:
    """Load, export."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--legacy", action="store_true")
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    spec = importlib.util.spec_from_file_location("model", args.model)
    # Strict export looks the module up by its name.
    module = sys.modules["model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.build()
    model.load_state_dict(torch.load(args.weights, map_location="cpu", weights_only=True))
    # The fused inference path of nn.TransformerEncoder is one opaque operator that no exporter knows.
    torch.backends.mha.set_fastpath_enabled(False)
    example = torch.zeros(4, 3, 32, 32)
    names = {"input_names": ["images"], "output_names": ["logits"]}
    if args.legacy:
        axes = {"images": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(
            model, (example,), args.out, dynamo=False, dynamic_axes=axes, opset_version=17, **names
        )
    else:
        # Strict tracing keeps the batch free where the model asks for len(x); the default would fix it.
        batch = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (example,), dynamic_shapes=batch, strict=True)
        torch.onnx.export(
            program, (), args.out, dynamo=True, dynamic_shapes=batch, external_data=False, **names
        )


if __name__ == "__main__":
    main()
