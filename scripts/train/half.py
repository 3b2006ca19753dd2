"""Weights in 16 bits, for every network that ships: half of the repository's megabytes, and no difference that a figure shows."""

import numpy as np
import torch


def halve(path):
    """Keeps the large weights of an ONNX file in 16 bits, each with a Cast to 32 behind it, which run-times do once when they load."""
    import onnx

    model = onnx.load(str(path))
    casts = []
    for t in model.graph.initializer:
        values = onnx.numpy_helper.to_array(t)
        if values.dtype == np.float32 and values.size > 64:
            casts.append(onnx.helper.make_node("Cast", [t.name], [f"{t.name}.f32"], to=onnx.TensorProto.FLOAT))
            t.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), t.name))
    wide = {c.input[0]: c.output[0] for c in casts}
    for node in model.graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
    nodes = casts + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def round_weights(model):
    """What `halve` stores: from here on the network is the one that ships."""
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 64:
                p.copy_(p.half().float())
