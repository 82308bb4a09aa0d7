"""Names: exact where they are short, distinct where they must be cut."""

import re

import pytest

from opengpu_operator.desired import names

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
QUALIFIED = re.compile(r"opengpu\.network/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def test_short_names_stay_as_they_are():
    assert names.child("j-061i6uku7ie62tg1", "v", "models") == "j-061i6uku7ie62tg1-v-models"


@pytest.mark.parametrize(
    ("parts", "other"),
    [
        (("j-1", "a" * 80), ("j-1", "a" * 81)),
        (("j-1", "My_DB"), ("j-1", "my_db")),
        (("j-1", "a.b"), ("j-1", "a-b")),
        (("j-1", "a-"), ("j-1", "a")),
    ],
)
def test_names_that_had_to_change_are_told_apart(parts, other):
    one, two = names.child(*parts), names.child(*other)
    assert one != two
    assert LABEL.fullmatch(one)
    assert LABEL.fullmatch(two)


def test_a_source_volume_never_takes_another_sources():
    mine = names.source_volume("a", "cpu", "b-cpu-v-c")
    others = names.source_volume("a-cpu-v-b", "cpu", "c")
    assert mine != others
    assert names.source_volume("chat", "nvidia", "models") == "s-chat-nvidia-v-models"


def test_a_users_volume_is_of_the_namespace_owner_and_environment():
    found = {
        names.user_volume("one", "me", "cpu"),
        names.user_volume("two", "me", "cpu"),
        names.user_volume("one", "you", "cpu"),
        names.user_volume("one", "me", "nvidia"),
        names.user_volume("one", "me", None),
    }
    assert len(found) == 5
    assert all(re.fullmatch(r"usr-[0-9a-f]{32}", name) for name in found)


@pytest.mark.parametrize("text", ["x" * 64, "-odd-", "a:b@c", "---", "ä", "a." * 40])
def test_label_values_are_valid(text):
    value = names.label_value(text)
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", value)
    assert value != text


def test_a_label_value_that_is_valid_stays():
    assert names.label_value("my.task_1") == "my.task_1"


def test_gates_say_what_they_wait_for():
    assert names.gate("healthy", "ollama") == "opengpu.network/healthy.ollama"


def test_long_gates_fit_and_differ():
    gates = {
        names.gate(until, "s" * 62 + end) for until in ("healthy", "completed", "placed") for end in "ab"
    }
    assert len(gates) == 6
    assert all(QUALIFIED.fullmatch(gate) for gate in gates)


class TestSpecHash:
    def test_is_the_same_with_and_without_itself(self):
        obj = {"kind": "X", "metadata": {"name": "x"}}
        marked = {**obj, "metadata": {"name": "x", "annotations": {"opengpu.network/spec-hash": "any"}}}
        assert names.spec_hash(obj) == names.spec_hash(marked)

    def test_does_not_depend_on_the_order_of_keys(self):
        assert names.spec_hash({"a": 1, "b": 2}) == names.spec_hash({"b": 2, "a": 1})

    @pytest.mark.parametrize(
        "other",
        [
            {"metadata": {"name": "x"}, "spec": {"a": [2, 1]}},
            {"metadata": {"name": "y"}, "spec": {"a": [1, 2]}},
            {"metadata": {"name": "x", "annotations": {"mine": ""}}, "spec": {"a": [1, 2]}},
        ],
    )
    def test_changes_with_anything_else(self, other):
        assert names.spec_hash({"metadata": {"name": "x"}, "spec": {"a": [1, 2]}}) != names.spec_hash(other)
