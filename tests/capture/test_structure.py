"""Values as leaves and trees, and back."""
import collections
import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from porting.structure import LEAF, Opaque, Record, Walker, flatten, rebuild, to_json, tree_of, unique


class Leaf:
    """Stands for a tensor."""

    def __init__(self, n):
        self.n = n

    def __eq__(self, other):
        return isinstance(other, Leaf) and other.n == self.n

    def __hash__(self):
        return hash(self.n)


def is_leaf(value):
    return isinstance(value, Leaf)


def there_and_back(value):
    leaves, tree = flatten(value, is_leaf)
    paths = [p for p, _ in leaves]
    assert len(set(paths)) == len(paths)
    text = json.loads(to_json(paths, tree))
    return rebuild(text["tree"], [leaf for _, leaf in leaves])


plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
values = st.recursive(
    plain | st.builds(Leaf, st.integers()),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=3).filter(lambda key: "\0" not in key), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_back(value):
    assert there_and_back(value) == value


def test_numbers_keep_their_kind():
    back = there_and_back([1, 1.0, True, -0.0, math.inf, math.nan, None])
    assert [type(v) for v in back] == [int, float, bool, float, float, float, type(None)]
    assert math.copysign(1, back[3]) == -1 and back[4] == math.inf and math.isnan(back[5])


@dataclasses.dataclass
class Pair:
    left: object
    right: object = None


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("value, paths", [
    (Leaf(0), ["0"]),
    ([Leaf(0), [Leaf(1)]], ["0", "1.0"]),
    ({"a.b": Leaf(0), "a": {"b": Leaf(1)}}, ["a.b", "a.b#2"]),
    ({1: Leaf(0), "1": Leaf(1)}, ["1", "1#2"]),
    (Pair(Leaf(0), Point(Leaf(1), 2)), ["left", "right.x"]),
    (collections.OrderedDict(z=Leaf(0), a=Leaf(1)), ["z", "a"]),
])
def test_paths(value, paths):
    assert [p for p, _ in flatten(value, is_leaf)[0]] == paths


def test_a_lone_leaf_of_a_tap_has_no_path():
    assert flatten(Leaf(0), is_leaf, lone="")[0] == [("", Leaf(0))]


def test_objects_become_records():
    back = there_and_back(Pair(Leaf(3), Point(Leaf(4), "text")))
    assert isinstance(back, Record) and back.class_name == "Pair" and back.left == Leaf(3) == back[0]
    assert back.right.y == "text" and list(back) == ["left", "right"]
    with pytest.raises(AttributeError, match="Pair has no field 'top'; it has left, right"):
        back.top


def test_what_holds_no_leaf_is_opaque_and_its_repr_has_no_address():
    class Config:
        size = 3

        def __init__(self):
            self.hidden = 4

    back = there_and_back([Config(), object(), print, int, 3j, Pair, 2**63])
    assert all(isinstance(b, Opaque) for b in back)
    assert "0x" not in repr(back) and back[4].text == "3j" and back[0].class_name == "Config"
    assert (back[6].class_name, back[6].text) == ("int", "9223372036854775808")


def test_objects_with_leaves_in_attributes_and_slots_are_walked():
    class Slots:
        __slots__ = ("a", "b")

        def __init__(self):
            self.a = [Leaf(1)]

    assert flatten(Slots(), is_leaf)[0] == [("a.0", Leaf(1))]


def test_cycles_and_depth_are_cut():
    loop = {"x": Leaf(0)}
    loop["self"] = loop
    walker = Walker(is_leaf)
    walker.walk(loop)
    assert walker.lost == ["dict contains itself"] and len(walker.leaves) == 1
    deep = Leaf(0)
    for _ in range(100):
        deep = [deep]
    walker.reset()
    walker.walk(deep)
    assert walker.lost == ["list nested deeper than 32"] and walker.leaves == []
    twice = [Leaf(0)]
    walker.reset()
    walker.walk([twice, twice])  # the same object twice is no cycle
    assert walker.lost == [] and len(walker.leaves) == 2


def test_equal_forms_have_equal_tokens_and_others_have_not():
    def tokens(value):
        walker = Walker(is_leaf)
        walker.walk(value)
        return tuple(walker.tokens)

    assert tokens([Leaf(1), {"a": 2}]) == tokens([Leaf(5), {"a": 2}])
    different = [[Leaf(1)], (Leaf(1),), [[Leaf(1)]], [Leaf(1), None], 1, 1.0, True, 0.0, -0.0, "1", None, {"0": Leaf(1)}]
    assert len({tokens(v) for v in different}) == len(different)
    assert tree_of((LEAF,)) == (["0"], {"$": 0})


@pytest.mark.parametrize("tree", [None, [], {}, {"list": 3}, {"$": 5}, {"tuple": [{"x": 1}]}, "text", {"object": "A", "fields": 3}])
def test_a_wrong_tree_is_refused(tree):
    with pytest.raises((ValueError, TypeError, AttributeError, IndexError)):
        rebuild(tree, [])


def test_repeated_names_are_numbered():
    assert unique(["a", "a", "a#2", "b", "a"]) == ["a", "a#2", "a#2#2", "b", "a#3"]
