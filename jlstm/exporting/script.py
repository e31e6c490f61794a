"""``use_it.py``: what is written into an export to run it on its example, without jlstm."""

from jlstm.exporting.portable import Portable
from jlstm.tasks.config import Target

NEEDS = {
    "onnx": "numpy onnxruntime",
    "stablehlo": "jax flatbuffers",
    "safetensors": "numpy safetensors",
    "torch": "numpy safetensors torch",
}
"""The packages, as pip knows them."""

WHAT = {
    "text": "The token that is likeliest to follow the example",
    "table": "Forecasts of the windows of the example",
    "sequences": "Labels of the sequences of the example",
}

IMPORTS: dict[Target, str] = {
    "onnx": "import onnxruntime\n",
    "stablehlo": "from jax import export\n",
    "safetensors": "from model import {name}\nfrom safetensors.numpy import load_file\n",
    "torch": "import torch\nfrom model import {name}\nfrom safetensors.torch import load_file\n",
}

RUN: dict[Target, str] = {
    "onnx": """\
onnxruntime.set_default_logger_severity(3)  # else it warns of inputs that may be left out
session = onnxruntime.InferenceSession(str(here / "model.onnx"))
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, inputs)))
""",
    "stablehlo": """\
program = export.deserialize(bytearray((here / "model.stablehlo").read_bytes()))
outputs = program.call(**inputs)
""",
    "safetensors": """\
weights = load_file(here / "stack.safetensors") | load_file(here / "around.safetensors")
outputs = {name}(weights, about["sizes"], **inputs)
""",
    "torch": """\
model = {name}(**about["sizes"])
model.load_state_dict(load_file(here / "model.safetensors"))
with torch.no_grad():
    outputs = model(**{{name: torch.from_numpy(array) for name, array in inputs.items()}})
    outputs = {{name: array.numpy() for name, array in outputs.items()}}
""",
}

BEFORE = {
    "text": "",
    "table": """\
scales = {  # of the series that each window is of
    name: [np.array(scale[of], float)[inputs["series"]] for of in ("mean", "std")]
    for name, scale in about["scale"].items()
}
for name, (mean, std) in scales.items():
    inputs[name] = ((inputs[name] - mean) / std).astype("float32")
""",
    "sequences": """\
scale = about["scale"]
inputs["xs"] = ((inputs["xs"] - scale["mean"]) / scale["std"]).astype("float32")
""",
}
AFTER = {
    "characters": """\
tokens = about["vocabulary"]["tokens"]
print(repr(tokens[outputs["logits"][-1, 0].argmax()]))
""",
    "byte": """\
print(bytes([outputs["logits"][-1, 0].argmax()]))
""",
    "table": """\
mean, std = scales["values"]
print("quantiles", *about["quantiles"])
print(outputs["quantiles"][:, 0] * std[0] + mean[0])  # of the first window, a row for each step
""",
    "classify": """\
print([about["labels"][n] for n in outputs["scores"].argmax(-1)])
""",
    "tag": """\
steps = outputs["scores"][: inputs["lengths"][0], 0]  # of the first sequence
print([about["labels"][n] for n in steps.argmax(-1)])
""",
    "regress": """\
print(outputs["scores"][:, 0] * about["label"]["std"] + about["label"]["mean"])
""",
}


def name_in_model(model: Portable, to: Target) -> str:
    """What computes the model in ``model.py``."""
    return model.kind.capitalize() if to == "torch" else model.kind


def script(model: Portable, to: Target) -> str:
    """The whole file."""
    ends = {"text": "characters", "sequences": model.about.get("task"), "table": "table"}
    end = ends[model.kind]
    if model.kind == "text" and model.about["vocabulary"]["kind"] == "byte":
        end = "byte"
    name = name_in_model(model, to)
    imports = "import numpy as np\n" + IMPORTS[to].format(name=name)
    lines = sorted(imports.splitlines(), key=lambda line: (line.startswith("from"), line))
    return f'''\
"""{WHAT[model.kind]}, without jlstm.

Needs: pip install {NEEDS[to]}
"""

import json
from pathlib import Path

{chr(10).join(lines)}

here = Path(__file__).parent
about = json.loads((here / "model.json").read_text("utf-8"))
inputs = dict(np.load(here / "example.npz"))
{BEFORE[model.kind]}{RUN[to].format(name=name)}{AFTER[str(end)]}
expected = np.load(here / "expected.npz")["{model.output}"]
print("Differs from what jlstm computed by", abs(outputs["{model.output}"] - expected).max())
'''
