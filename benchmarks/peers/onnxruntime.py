"""ONNX Runtime: a graph of standard operators for each case, on its CPU provider."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from benchmarks.cases import IGNORED, Case
from benchmarks.peers import Contestant, LacksError, Peer

_OPSET = 18


class _Graph:
    """A graph in the making: each method adds a node and returns the name of its result."""

    def __init__(self, onnx: Any, case: Case) -> None:
        self._helper = onnx.helper
        self.kind = onnx.helper.np_dtype_to_tensor_dtype(case.inputs[0].dtype)
        self._dtype = case.inputs[0].dtype
        self._arrays = onnx.numpy_helper.from_array
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        result = f"t{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(operator, list(inputs), [result], **attributes))
        return result

    def number(self, value: Any, dtype: Any = None) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self._arrays(np.asarray(value, dtype or self._dtype), name))
        return name

    def sum(self, x: str, axis: int) -> str:
        return self.add("ReduceSum", x, self.number([axis], np.int64), keepdims=0)

    def total(self, x: str, axis: int) -> str:
        return self.add("ReduceLogSumExp", x, self.number([axis], np.int64), keepdims=0)

    def kl(self, p: str, log_p: str, log_q: str, axis: int) -> str:
        return self.sum(self.add("Mul", p, self.add("Sub", log_p, log_q)), axis)


class OnnxRuntime(Peer):
    """ONNX Runtime, its results bound to memory that was there before where it is told so."""

    name = "onnxruntime"
    spins = 0.15  # 60 to 100 ms were seen: 2^20 times a processor's pause

    def __init__(self, threads: int) -> None:
        self._onnx: Any = importlib.import_module("onnx")
        importlib.import_module("onnx.numpy_helper")
        self._runtime: Any = importlib.import_module("onnxruntime")
        self.version = self._runtime.__version__
        self._threads = threads

    def contestant(self, case: Case) -> Contestant:
        runtime = self._runtime
        if case.dtype == "bfloat16":
            raise LacksError("has no bfloat16 on CPUs")
        names = [f"x{k}" for k in range(len(case.arrays))]
        model = self._model(case, names)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        try:
            session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # each of its errors has a class of its own
            raise LacksError(f"refuses the graph: {_first_line(error)}") from error
        binding = session.io_binding()
        for name, array in zip(names, case.arrays, strict=True):
            binding.bind_ortvalue_input(name, runtime.OrtValue.ortvalue_from_numpy(array))
        feed = dict(zip(names, case.arrays, strict=True))
        try:
            kept = runtime.OrtValue.ortvalue_from_numpy(session.run(["result"], feed)[0])
        except Exception as error:
            raise LacksError(f"fails: {_first_line(error)}") from error
        binding.bind_ortvalue_output("result", kept)

        def into() -> Any:
            session.run_with_iobinding(binding)
            return kept.numpy()

        return Contestant(lambda: session.run(["result"], feed)[0], into)

    def _model(self, case: Case, names: list[str]) -> bytes:
        helper = self._onnx.helper
        graph = _Graph(self._onnx, case)
        result = self._nodes(graph, case, names)
        graph.nodes.append(helper.make_node("Identity", [result], ["result"]))
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, case.arrays, strict=True)
        ]
        shapes = {"map": case.layout.shape, "rows": case.layout.row_shape, "scalar": ()}
        output = helper.make_tensor_value_info("result", graph.kind, shapes[case.op.result])
        whole = helper.make_graph(graph.nodes, "case", inputs, [output], graph.constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        model: bytes = helper.make_model(
            whole, opset_imports=opsets, ir_version=9
        ).SerializeToString()
        return model

    def _nodes(self, g: _Graph, case: Case, names: list[str]) -> str:
        op, axis = case.op, case.layout.axis
        x = names[0]
        if op.function in ("cross_entropy", "nll_loss"):
            return self._loss(g, case, names)
        match op.function, op.form:
            case "logsumexp", _:
                return g.total(x, axis)
            case "softmax", _:
                return g.add("Softmax", x, axis=axis)
            case "log_softmax", _:
                return g.add("LogSoftmax", x, axis=axis)
            case "entropy", "probs":
                return g.add("Neg", g.sum(g.add("Mul", x, g.add("Log", x)), axis))
            case "entropy", "logits":
                log_p = g.add("LogSoftmax", x, axis=axis)
                terms = g.add("Mul", g.add("Exp", log_p), log_p)
                return g.add("Neg", g.sum(terms, axis))
            case "kl_divergence", "probs":
                ratio = g.add("Log", g.add("Div", x, names[1]))
                return g.sum(g.add("Mul", x, ratio), axis)
            case "kl_divergence", "logits":
                log_p, log_q = (g.add("LogSoftmax", name, axis=axis) for name in names)
                return g.kl(g.add("Exp", log_p), log_p, log_q, axis)
            case "js_divergence", form:
                half = g.number(0.5)
                p, q = names
                if form == "logits":
                    p, q = (g.add("Softmax", name, axis=axis) for name in names)
                log_m = g.add("Log", g.add("Mul", g.add("Add", p, q), half))
                sides = (g.kl(side, g.add("Log", side), log_m, axis) for side in (p, q))
                return g.add("Mul", g.add("Add", *sides), half)
        raise LacksError(f"has no {op.function} of {op.form}")

    def _loss(self, g: _Graph, case: Case, names: list[str]) -> str:
        op, axis, keywords = case.op, case.layout.axis, case.op.keywords
        x, y, *extra = names
        if op.option == "where":
            x = g.add("Where", extra[0], x, g.number(-math.inf))
        if "temperature" in keywords:
            x = g.add("Mul", x, g.number(1 / keywords["temperature"]))
        total = g.total(x, axis) if "z_loss" in keywords else ""
        if op.target == "soft":
            terms = g.add("Mul", y, g.add("LogSoftmax", x, axis=axis))
            return g.add("Neg", g.add("ReduceMean", g.sum(terms, axis), keepdims=0))
        dimensions = len(case.layout.shape)
        if axis % dimensions != 1:
            order = [k for k in range(dimensions) if k != axis % dimensions]
            x = g.add("Transpose", x, perm=[order[0], axis % dimensions, *order[1:]])
        operator = "SoftmaxCrossEntropyLoss" if op.form == "logits" else "NegativeLogLikelihoodLoss"
        rows = op.option == "sample_weight" or op.result == "rows"
        attributes: dict[str, Any] = {"reduction": "none" if rows else "mean"}
        if op.option == "ignore_index":
            attributes["ignore_index"] = IGNORED
        weight = extra if op.option == "weight" else []
        loss = g.add(operator, x, y, *weight, **attributes)
        if op.option == "sample_weight":
            weighted = g.add("ReduceSum", g.add("Mul", loss, extra[0]), keepdims=0)
            return g.add("Div", weighted, g.add("ReduceSum", extra[0], keepdims=0))
        if "label_smoothing" in keywords:
            e = keywords["label_smoothing"]
            uniform = g.add("Neg", g.add("ReduceMean", g.add("LogSoftmax", x, axis=1), keepdims=0))
            parts = (g.add("Mul", loss, g.number(1 - e)), g.add("Mul", uniform, g.number(e)))
            return g.add("Add", *parts)
        if total:
            squares = g.add("ReduceMean", g.add("Mul", total, total), keepdims=0)
            return g.add("Add", loss, g.add("Mul", squares, g.number(keywords["z_loss"])))
        if "base" in keywords:
            return g.add("Mul", loss, g.number(1 / math.log(keywords["base"])))
        return loss


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:120]


PEERS = (OnnxRuntime,)
