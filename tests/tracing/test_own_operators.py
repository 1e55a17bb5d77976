"""Rules that a user registers: the example of the page, and what is without or with a wrong one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lcprune.cost import CostModel
from lcprune.errors import InputError, VerificationError
from lcprune.testing import check, randomise
from lcprune.tracing import Call, along, from_vector, rule, trace, vector
from lcprune.tracing._rule import RULES

PAGE = Path(__file__).parents[2] / "docs" / "own-operator.md"


@torch.library.custom_op("lcprune_tests::mix", mutates_args=())
def mix(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("nchw,mc->nmhw", x, weight).contiguous()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(6, 8))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(mix(torch.relu(self.stem(x)), self.weight)).mean((2, 3)))


EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _rules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


def follow(call: Call, *, joins: bool = True, masks: bool = True) -> Any:
    x, weight = call.args
    channels = vector(along(call.planes(x), 1), 1, x.shape[1])
    filters = vector(along(call.planes(weight), 0), 0, weight.shape[0])
    reads = vector(along(call.planes(weight), 1), 1, weight.shape[1])
    if joins:
        call.join(channels, reads)
    call.produce(filters)
    out = call.run(call.masked(x, 1) if masks else x, weight)
    call.set(out, from_vector(filters, 1, out.dim()))
    call.count(out[:, 0].numel(), filters, reads)
    return out


def test_the_example_of_the_page_runs_and_says_what_the_page_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    space: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), space)
    assert capsys.readouterr().out.startswith("28 groups, error ")
    assert "It prints `28 groups`" in text
    assert space["checked"].error < 1e-9
    graph = space["graph"]
    assert not graph.uncounted
    macs = CostModel(graph).evaluate()["macs"]
    assert macs == 32 * 32 * (3 * 16 * 9 + 16 * 12) + 12 * 10


def test_without_a_rule_what_touches_the_operator_stays_with_the_reason() -> None:
    graph = trace(randomise(Network(), 0), EXAMPLE)
    assert graph.prunable == 0
    assert graph.uncounted == ("lcprune_tests.mix in the model",)
    assert {u.reason for u in graph.untouched if u.tensor == "stem.weight"} == {
        "no rule for lcprune_tests.mix in the model"
    }


@pytest.mark.parametrize(
    "operator",
    [mix, "lcprune_tests::mix", torch.ops.lcprune_tests.mix, torch.ops.lcprune_tests.mix.default],
    ids=["custom_op", "name", "packet", "overload"],
)
def test_a_rule_is_registered_for_an_operator_in_any_form(operator: Any) -> None:
    rule(operator)(follow)
    checked = check(randomise(Network(), 0), EXAMPLE)
    assert checked.graph.prunable == 14
    assert checked.error < 1e-9
    assert checked.effect > 1e-3


@pytest.mark.parametrize("wrong", [{"joins": False}, {"masks": False}], ids=["join", "mask"])
def test_a_rule_that_forgets_something_is_found(wrong: dict[str, bool]) -> None:
    rule(mix)(lambda call: follow(call, **wrong))
    with pytest.raises(VerificationError):
        check(randomise(Network(), 0), EXAMPLE)


@pytest.mark.parametrize("name", ["permutation", "nobody::mix", 3, torch.relu])
def test_an_operator_that_there_is_not_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="no operator"):
        rule(name)
    assert rule(optional=["permutation"])(follow) is follow


def test_an_operator_of_two_products_counts_both() -> None:
    @rule(mix)
    def twice(call: Call) -> Any:
        out = follow(call)
        call.count(10)
        return out

    graph = trace(randomise(Network(), 0), EXAMPLE)
    assert CostModel(graph).evaluate()["macs"] == 64 * (3 * 8 * 9 + 8 * 6) + 10 + 24
