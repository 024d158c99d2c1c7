"""An idea: a channel can go if it adds little to the next layer, or if another channel adds nearly the same."""

import numpy as np
from thinet_selector import serve


def replaceable(evidence):
    energy = np.diag(evidence.gram)
    length = np.sqrt(np.maximum(energy, 1e-300))
    likeness = np.abs(evidence.gram) / np.outer(length, length)
    np.fill_diagonal(likeness, 0.0)
    return energy * (1.0 - likeness.max(axis=1) ** 2)


serve("replaceable", needs=["moments"], scores=replaceable)
