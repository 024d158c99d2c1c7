"""A selector of thinet in Python: ten lines and NumPy.

    import numpy as np
    from thinet_selector import serve

    def small_filters(evidence):
        return np.abs(evidence.filters).sum(axis=1)

    serve("small filters", needs=["filters"], scores=small_filters)

`scores` returns a number for each channel (the smallest is removed first), `order` the channels themselves (first removed first).
Either gets the evidence about one layer. docs/your-own-selector.md describes the protocol; a notebook reads the files of
`thinet evidence` with `Evidence(path, layer)`.
"""

import json
import os
import struct
import sys
import traceback

import numpy as np

PROTOCOL = 1

_TYPES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def read_tensors(path):
    """The tensors of a safetensors file by name, and its metadata. Read-only arrays, as stored."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(content[start:end], dtype=np.dtype(_TYPES[entry["dtype"]]))
        tensors[name] = values.reshape(entry["shape"])
    return tensors, metadata


def layers(path):
    """The names of the layers in a file of evidence, in pruning order."""
    tensors, metadata = read_tensors(path)
    if "layers" in metadata:
        return json.loads(metadata["layers"])
    return list(dict.fromkeys(name.rpartition(".")[0] for name in tensors))


class Evidence:
    """The evidence about one layer of C channels.

    filters            [C, n]  the weights of each filter (needs "filters")
    batch_norm_scales  [C]     |gamma| of the batch norm behind the layer ("batch-norm-scales")
    zeros, total       [C]     how often each channel was zero, of how many values ("zeros")
    mean, mean_abs, max  [C]   of each channel's activation ("activations")
    gram, rows         [C, C]  products of what channels add to the next layer, summed over sampled rows ("moments")
    taylor, taylor_abs, images  [C]  activation times gradient of the loss, averaged over each image's map: mean over images, and mean of
                               the absolute values ("gradients")
    """

    def __init__(self, path, layer, seed=0, keep=()):
        tensors, _ = read_tensors(path)
        start = layer + "."
        self.layer, self.seed, self.keep = layer, seed, list(keep)
        self._tensors = {name[len(start) :]: tensors[name] for name in tensors if name.startswith(start)}

    def tensor(self, name):
        """A stored tensor by its name."""
        if name not in self._tensors:
            held = ", ".join(sorted(self._tensors)) or "nothing"
            raise KeyError(f"no {name} of layer {self.layer}: it holds {held}; name the kind of evidence in needs")
        return self._tensors[name]

    def rng(self):
        """A random generator that depends on the study's seed and the layer alone."""
        return np.random.default_rng(self.seed)

    filters = property(lambda self: self.tensor("filters"))
    batch_norm_scales = property(lambda self: self.tensor("batch-norm-scales"))
    zeros = property(lambda self: self.tensor("zeros"))
    total = property(lambda self: int(self.tensor("total")[0]))
    mean = property(lambda self: self.tensor("mean"))
    mean_abs = property(lambda self: self.tensor("mean-abs"))
    max = property(lambda self: self.tensor("max"))
    gram = property(lambda self: self.tensor("gram"))
    rows = property(lambda self: int(self.tensor("rows")[0]))
    taylor = property(lambda self: self.tensor("taylor"))
    taylor_abs = property(lambda self: self.tensor("taylor-abs"))
    images = property(lambda self: int(self.tensor("images")[0]))


def _checked(key, answer, channels):
    """The answer as a list. Scores are one finite number for each channel."""
    answer = np.asarray(answer)
    if key == "scores" and answer.shape != (channels,):
        raise ValueError(f"scores have shape {answer.shape}, not ({channels},)")
    if key == "scores" and not np.isfinite(answer).all():
        worst = int(np.flatnonzero(~np.isfinite(answer))[0])
        raise ValueError(f"the score of channel {worst} is {answer[worst]}")
    return answer.tolist()


def _described(error):
    """An exception in one line: what it is, the lines that it passed through, innermost last, and the exceptions that it followed from."""
    parts = []
    while error is not None and len(parts) < 4:
        what = " ".join("".join(traceback.format_exception_only(type(error), error)).split())[:1000]
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
        where = [f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}" for frame in frames[-10:]]
        parts.append(f"{what} ({', '.join(where)})" if where else what)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "; from ".join(parts).encode("utf-8", "replace").decode()


def serve(name, needs, scores=None, order=None):
    """Says hello, then answers every question on standard input until it is closed. Give `scores` or `order`."""
    if (scores is None) == (order is None):
        raise TypeError("serve needs one of scores and order")
    key, function = ("scores", scores) if order is None else ("order", order)
    # What a selector prints must not end up among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(message):
        answers.write(message + "\n")
        answers.flush()

    say(json.dumps({"protocol": PROTOCOL, "name": name, "needs": list(needs)}))
    for line in sys.stdin:
        question = json.loads(line)
        evidence = Evidence(question["evidence"], question["layer"], question["seed"], question["keep"])
        try:
            answer = json.dumps({key: _checked(key, function(evidence), question["channels"])}, allow_nan=False)
        except Exception as error:
            answer = json.dumps({"error": _described(error)})
        say(answer)
