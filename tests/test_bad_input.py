"""Bad input: one clear sentence each, never a plausible number."""

from __future__ import annotations

import numpy as np
import pytest

import hsref
from oracle import farkas_gap
from tolerances import assert_close

TRIANGLE = hsref.Polyhedron(A_eq=[[1.0, 1.0, 1.0]], b_eq=[1.0], lower=0.0, n=3)
SETS = [
    pytest.param(TRIANGLE, id="Polyhedron"),
    pytest.param(hsref.Simplex(3), id="Simplex"),
    pytest.param(hsref.Box(0.0, 1.0, n=3), id="Box"),
]
CALLS = [hsref.project, hsref.projection]


def sentence(caught) -> str:
    """Return the message, after checking that it is one: words, an end, and no traceback jargon."""
    text = str(caught.value)
    assert len(text.split()) >= 5, text
    assert text[-1] in ".!", text
    assert "numba" not in text.lower()
    return text


# -- x --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", SETS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nonfinite_x_names_the_first_bad_index(C, call, bad, dtype):
    x = np.zeros((2, 4, 3), dtype)
    x[1, 2, 0] = bad
    x[1, 3, 1] = bad
    for on_infeasible in ("raise", "nan"):  # NaN in is not infeasible: it never passes
        with pytest.raises(ValueError, match=r"\(1, 2, 0\)") as caught:
            call(x, C, on_infeasible=on_infeasible)
        assert str(bad) in sentence(caught)


@pytest.mark.parametrize("call", CALLS)
def test_nonfinite_single_point(call):
    with pytest.raises(ValueError, match=r"\(2,\)|index 2") as caught:
        call([0.0, 1.0, np.nan], hsref.Simplex(3))
    sentence(caught)


@pytest.mark.parametrize("C", SETS)
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", [(), (2,), (4,), (3, 2), (5, 3, 1), (3, 0)])
def test_shapes_that_disagree_are_both_named(C, call, shape):
    with pytest.raises(ValueError, match=r"\(3,\)") as caught:
        call(np.zeros(shape), C)
    assert str(shape) in sentence(caught)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("x", "word"),
    [
        (np.zeros(3, np.float16), "float32"),
        (np.zeros(3, complex), "complex"),
        (np.array(["a", "b", "c"]), "dtype"),
        (np.zeros(3, object), "dtype"),
        (np.zeros(3, bool), "bool"),
        (np.zeros(3, np.longdouble), "float64"),
        (np.ma.masked_invalid([0.0, np.nan, 1.0]), "mask"),
        (None, "x"),
    ],
    ids=["half", "complex", "text", "object", "bool", "longdouble", "masked", "None"],
)
def test_dtypes_that_cannot_be_projected(call, x, word):
    if isinstance(x, np.ndarray) and x.dtype == np.float64 and word == "float64":
        pytest.skip("long double is double here")
    with pytest.raises((TypeError, ValueError), match=word) as caught:
        call(x, hsref.Simplex(3))
    sentence(caught)


@pytest.mark.parametrize("call", CALLS)
def test_ragged_lists(call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call([[0.0, 1.0, 2.0], [0.0, 1.0]], hsref.Simplex(3))
    sentence(caught)


# -- C and the options ----------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("C", [None, 3, np.eye(3), hsref.Simplex])
def test_something_that_is_no_set(call, C):
    with pytest.raises(TypeError, match="set") as caught:
        call(np.zeros(3), C)
    sentence(caught)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"on_infeasible": "ignore"}, "'nan'"),
        ({"selection": "all"}, "'support'"),
        ({"device": "tpu"}, "'tpu'"),
        ({"n_threads": 0}, "positive"),
        ({"n_threads": -2}, "positive"),
        ({"n_threads": 1.5}, "1.5"),
        ({"n_threads": True}, "True"),
        ({"start": "warm"}, "start"),
    ],
    ids=str,
)
def test_options(call, option, word):
    with pytest.raises((TypeError, ValueError), match=word) as caught:
        call(np.zeros(3), TRIANGLE, **option)
    sentence(caught)


def test_start_from_another_set_or_batch():
    start = hsref.projection(np.zeros((2, 3)), TRIANGLE)
    with pytest.raises(ValueError, match="start") as caught:
        hsref.project(np.zeros((4, 3)), TRIANGLE, start=start)
    sentence(caught)
    with pytest.raises(ValueError, match="start") as caught:
        hsref.project(np.zeros((2, 4)), hsref.Simplex(4), start=start)
    sentence(caught)


@pytest.mark.parametrize("call", CALLS)
def test_data_of_the_call(call):
    C = hsref.Polyhedron(A_ub=[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], b_ub=[1.0, 0.0], lower=0.0)
    x = np.zeros((4, 3))
    with pytest.raises(TypeError, match="radius") as caught:
        call(x, C, radius=2.0)
    sentence(caught)
    with pytest.raises(ValueError, match=r"b_ub.*\(5, 2\)") as caught:
        call(x, C, b_ub=np.ones((5, 2)))
    assert "(4,)" in sentence(caught) or "(4, 2)" in sentence(caught)
    with pytest.raises(ValueError, match=r"b_ub.*\(3,\)") as caught:
        call(x, C, b_ub=np.ones(3))
    sentence(caught)
    for bad in (np.nan, -np.inf):
        with pytest.raises(ValueError, match=r"b_ub|data") as caught:
            call(x, C, b_ub=[1.0, bad])
        sentence(caught)
    with pytest.raises(ValueError, match="lower") as caught:
        call(x, C, lower=[0.0, np.nan, 0.0])
    sentence(caught)
    with pytest.raises((TypeError, ValueError), match="b_ub") as caught:
        call(x, C, b_ub="tight")
    sentence(caught)
    with pytest.raises(hsref.InfeasibleError, match="empty") as caught:
        call(x, hsref.Simplex(3), total=-1.0)
    sentence(caught)


def test_void_rows_and_infinite_bounds_are_no_error():
    C = hsref.Polyhedron(
        A_ub=[[1.0, 1.0], [1.0, 0.0]], b_ub=[np.inf, 0.0], lower=-np.inf, upper=np.inf
    )
    np.testing.assert_array_equal(hsref.project([2.0, 3.0], C), [0.0, 3.0])
    np.testing.assert_array_equal(hsref.project([2.0, 3.0], C, b_ub=[np.inf, np.inf]), [2.0, 3.0])


# -- building sets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ({}, "n="),
        ({"A_ub": [[1.0, 0.0]]}, "b_ub"),
        ({"b_ub": [1.0]}, "A_ub"),
        ({"A_eq": [[1.0, 0.0]]}, "b_eq"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [1.0, 2.0]}, "b_ub"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [1.0], "A_eq": [[1.0]], "b_eq": [1.0]}, "A_eq"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [1.0], "lower": [0.0, 0.0, 0.0]}, "lower"),
        ({"A_ub": [1.0, 0.0], "b_ub": [1.0]}, "A_ub"),
        ({"A_ub": [[np.nan, 0.0]], "b_ub": [1.0]}, "A_ub"),
        ({"A_ub": [[np.inf, 0.0]], "b_ub": [1.0]}, "A_ub"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [np.nan]}, "b_ub"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [-np.inf]}, "b_ub"),
        ({"A_eq": [[1.0, 0.0]], "b_eq": [np.inf]}, "b_eq"),
        ({"lower": [np.nan, 0.0]}, "lower"),
        ({"lower": [1.0, 0.0], "upper": [0.0, 1.0]}, "lower"),
        ({"lower": [np.inf, 0.0]}, "lower"),
        ({"upper": [-np.inf, 0.0]}, "upper"),
        ({"lower": 0.0}, "n="),
        ({"n": 0}, "n"),
        ({"n": 2.5}, "n"),
        ({"A_ub": [[1.0, 0.0]], "b_ub": [1.0], "n": 3}, "n"),
        ({"A_ub": [["a", "b"]], "b_ub": [1.0]}, "A_ub"),
        ({"A_ub": [[1.0 + 1j, 0.0]], "b_ub": [1.0]}, "A_ub"),
    ],
    ids=lambda v: None if isinstance(v, str) else ",".join(map(str, v)) or "nothing",
)
def test_malformed_polyhedra(description, word):
    with pytest.raises((TypeError, ValueError), match=word) as caught:
        hsref.Polyhedron(**description)
    sentence(caught)


@pytest.mark.parametrize(
    "build",
    [
        lambda: hsref.Simplex(0),
        lambda: hsref.Simplex(-3),
        lambda: hsref.Simplex(2.5),
        lambda: hsref.Simplex("three"),
        lambda: hsref.Simplex(3, -1.0),
        lambda: hsref.Simplex(3, np.nan),
        lambda: hsref.Simplex(3, np.inf),
        lambda: hsref.Simplex(3, [1.0, 2.0]),
        lambda: hsref.Box(0.0, 1.0),
        lambda: hsref.Box(1.0, 0.0, n=2),
        lambda: hsref.Box([0.0, 0.0], [1.0, 1.0, 1.0]),
        lambda: hsref.Box(np.nan, 1.0, n=2),
        lambda: hsref.Box(np.inf, np.inf, n=2),
        lambda: hsref.Box([[0.0]], 1.0),
    ],
    ids=["0", "-3", "2.5", "text", "total<0", "nan", "inf", "shape", "no n", "crossed", "shapes",
         "nan bound", "inf bound", "matrix"],
)  # fmt: skip
def test_malformed_special_sets(build):
    with pytest.raises((TypeError, ValueError)) as caught:
        build()
    sentence(caught)


BOUNDED = [
    pytest.param(hsref.Polyhedron(lower=[0.0, 0.0], upper=[1.0, 1.0]), id="bounds alone"),
    pytest.param(hsref.Polyhedron(A_ub=[[1.0, 1.0]], b_ub=[9.0], lower=0.0, upper=1.0), id="rows"),
    pytest.param(hsref.Box(0.0, 1.0, n=2), id="Box"),
]


@pytest.mark.parametrize("C", BOUNDED)
def test_crossed_bounds_of_a_call_are_an_empty_set(C):
    x, upper = np.zeros((2, 2)), np.array([[1.0, 1.0], [-1.0, 1.0]])
    with pytest.raises(hsref.InfeasibleError, match=r"\(1,\)") as caught:
        hsref.project(x, C, upper=upper)
    sentence(caught)
    certificate = caught.value.certificate
    rows = C.to_polyhedron()
    row, total = farkas_gap(
        certificate, 2, A_ub=rows.A_ub, b_ub=rows.b_ub, lower=np.zeros(2), upper=upper[1]
    )
    assert row == 0.0
    assert total < 0.0
    y = hsref.project(x, C, upper=upper, on_infeasible="nan")
    np.testing.assert_array_equal(np.isnan(y).any(axis=1), [False, True])


@pytest.mark.parametrize("C", BOUNDED)
@pytest.mark.parametrize("bounds", [{"lower": np.inf}, {"upper": -np.inf}], ids=str)
def test_bounds_that_no_point_satisfies(C, bounds):
    with pytest.raises(ValueError, match=r"lower|upper") as caught:
        hsref.project(np.zeros(2), C, **bounds)
    sentence(caught)


def test_contains_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\)") as caught:
        hsref.Simplex(3).contains(np.zeros(2))
    sentence(caught)


def test_gentle_extremes_are_no_error():
    # empty batches, denormals, huge values: legitimate
    assert hsref.project(np.zeros((0, 3)), TRIANGLE).shape == (0, 3)
    assert hsref.projection(np.zeros((0, 3)), TRIANGLE).status.shape == (0,)
    tiny = hsref.project(np.array([5e-324, 0.0, 0.0]), TRIANGLE)
    assert_close(tiny, np.full(3, 1.0 / 3.0), "agree")
    far = hsref.project(np.array([1e100, 0.0, 0.0]), hsref.Simplex(3))
    np.testing.assert_array_equal(far, [1.0, 0.0, 0.0])
