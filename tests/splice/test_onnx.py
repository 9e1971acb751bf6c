"""ONNX with dynamic batch and size, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import rlawrap
from tests.nets import family, random_rla, relative

pytest.importorskip("onnxscript", reason="pip install 'rlawrap[export]' for ONNX")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'rlawrap[export]' for ONNX")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "cell"), [("block_net", "conv"), ("functional_net", "convlstm")])
def test_equal_in_onnxruntime(name: str, cell: str, tmp_path: Path) -> None:
    base, x = family(name)
    model = random_rla(rlawrap.apply(base.eval(), k=4, cell=cell, initial_state="zeros"))
    path = tmp_path / "model.onnx"
    dynamic = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        model,
        (x,),
        str(path),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in (tuple(x.shape), (3, 3, 75, 90), (1, 3, 33, 64)):
        image = torch.randn(shape)
        (out,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            assert relative(model(image), torch.from_numpy(out)) < 1e-4
