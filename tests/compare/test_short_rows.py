"""What stands for the size of an element whose row is too short to have one of its own."""

import numpy as np
from porting.pair import compare_arrays


def passes(expected: np.ndarray, actual: np.ndarray) -> bool:
    return compare_arrays(expected, actual, kind="composite", terms=9).verdict.passed


def test_a_number_near_zero_in_an_image_of_one_column():
    """It is the rest of terms as large as its neighbours, whose roundings it keeps; one of 20 times as many, or in a row of its own, is refused."""
    expected = np.random.default_rng(0).normal(size=(2, 256, 4, 1))
    expected[1, 7, 2] = 1e-4
    near, far = expected.copy(), expected.copy()
    near[1, 7, 2] += 300 * 2.0**-53
    far[1, 7, 2] += 2000 * 2.0**-53
    assert passes(expected, near) and not passes(expected, far)
    items = np.full((2, 1), 1.0)
    items[1] = 1e-4
    assert not passes(items, items + [[0], [100 * 2.0**-53]]) and passes(items, items + [[100 * 2.0**-53], [0]])
    rows = np.stack([np.ones((4, 8)), np.full((4, 8), 1e-2)])
    assert not passes(rows, rows + np.array([0, 100 * 2.0**-53])[:, None, None])
