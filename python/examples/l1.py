"""Weight sum (Li et al. 2017): removes the filters with the smallest sum of absolute weights. The same as weight-sum-l1."""

import numpy as np
from thinet_selector import serve


def l1(evidence):
    # Summed in 64 bits and in the order of memory, so that the sums are those of the program to the last bit.
    return np.abs(evidence.filters.astype(np.float64)).cumsum(axis=1)[:, -1]


serve("l1", needs=["filters"], scores=l1)
