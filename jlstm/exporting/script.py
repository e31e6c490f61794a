"""``use_it.py``: ten lines, written into an export, that run it on its example without jlstm."""

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
    "torch": "import torch\nfrom model import {name}, load\n",
}

RUN: dict[Target, str] = {
    "onnx": """\
session = onnxruntime.InferenceSession(str(here / "model.onnx"))
found = session.run(["{output}"], inputs)[0]
""",
    "stablehlo": """\
program = export.deserialize(bytearray((here / "model.stablehlo").read_bytes()))
found = np.asarray(program.call(**inputs)["{output}"])
""",
    "safetensors": """\
weights = load_file(here / "stack.safetensors") | load_file(here / "around.safetensors")
found = {name}(weights, about["sizes"], **inputs)["{output}"]
""",
    "torch": """\
model = load({name}(**about["sizes"]), here / "model.safetensors")
found = model(**{{k: torch.from_numpy(a) for k, a in inputs.items()}})["{output}"].numpy()
""",
}
QUIET = "onnxruntime.set_default_logger_severity(3)  # it warns of inputs that may be left out\n"
"""Where a model of ONNX has such inputs."""

BEFORE = {
    "text": "",
    "table": """\
for name, s in about["scale"].items():  # of the series that each window is of; last, of values
    mean, std = np.array([s["mean"], s["std"]], float)[:, inputs["series"]]
    inputs[name] = ((inputs[name] - mean) / std).astype("float32")
""",
    "sequences": """\
scale = about["scale"]
inputs["xs"] = ((inputs["xs"] - scale["mean"]) / scale["std"]).astype("float32")
""",
}
AFTER = {
    "characters": """\
print(repr(about["vocabulary"]["tokens"][found[-1, 0].argmax()]))
""",
    "byte": """\
print(bytes([found[-1, 0].argmax()]))
""",
    "table": """\
print(about["quantiles"], found[:, 0] * std[0] + mean[0], sep="\\n")  # of the first window
""",
    "classify": """\
print([about["labels"][n] for n in found.argmax(-1)])
""",
    "tag": """\
print([about["labels"][n] for n in found[: inputs["lengths"][0], 0].argmax(-1)])  # of the first
""",
    "regress": """\
print(found[:, 0] * about["label"]["std"] + about["label"]["mean"])
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
    quiet = QUIET if to == "onnx" and model.kind != "table" else ""
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
{BEFORE[model.kind]}{quiet}{RUN[to].format(name=name, output=model.output)}{AFTER[str(end)]}\
print("Differs from jlstm by", abs(found - np.load(here / "expected.npz")["{model.output}"]).max())
'''
