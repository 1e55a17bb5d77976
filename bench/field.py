"""Networks with the structure of public bug reports: does each come out as it must?

    python bench/field.py [--networks networks.py]     # a row for each network
    python bench/field.py table                        # the latest row of each

``networks.py`` holds ``CASES`` of a ``name``, a ``build()``, ``inputs`` and a sentence of what must
come out; without the option it is ``field/networks.py`` under ``LCPRUNE_DATA``. Each is traced,
repaired, ranked (half the MACs), cut and verified, and then judged apart from the package: against
a copy whose weights hold zeros where a removed channel is read, in evaluation and in training,
values and gradients; by ``torch.utils.flop_counter``; saved, loaded, copied, exported, and trained
for a step. A row holds every fault in words.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

import lcprune as lp
import runner
from lcprune.errors import LcpruneError, ModelError
from lcprune.graph import ChannelGraph
from lcprune.ranking import Plan, PlanBuilder
from lcprune.testing import counted, randomise

KEYS = ("network", "commit")
NEAR = 1e-9
HALF = (0.4, 0.5)


@dataclass
class Subject:
    """A network on its way, and what is wrong with it so far."""

    case: Any
    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    freed: tuple[str, int] | None = None
    graph: ChannelGraph | None = None
    plan: Plan | None = None
    small: nn.Module | None = None

    @contextmanager
    def judging(self, what: str) -> Iterator[None]:
        """What is raised within is a fault."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                yield
        except Exception as error:
            text = str(error).strip().split("\n")[0][:200]
            self.faults.append(f"{what}: {type(error).__name__}: {text}")

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)

    @property
    def given(self) -> dict[str, Any]:
        """The inputs as the package's functions take them."""
        given: dict[str, Any] = {"example_input": self.args if self.args else None}
        return given | ({"example_kwargs": self.kwargs} if self.kwargs else {})


def judge(case: Any) -> dict[str, Any]:
    """Everything that the bench says about a network."""
    torch.manual_seed(0)
    model = randomise(case.build(), 1)
    subject = Subject(case, model, case.inputs)
    if case.name == "inputs by keyword":
        subject.kwargs = {"image": torch.rand(1, 3, 32, 32)}
    SPECIAL.get(case.name, pruned)(subject)
    verdict = "as it must" if not subject.faults else "fault"
    return {**subject.facts, "faults": subject.faults, "must": case.must, "verdict": verdict}


def pruned(subject: Subject) -> None:
    """Half the MACs go, and the network is right in every way that this bench knows."""
    if not cut(subject):
        return
    least, most = HALF
    ratio = subject.facts["macs"] / subject.facts["macs_before"]
    subject.facts["ratio"] = round(ratio, 4)
    subject.expect(least <= ratio <= most, f"really {ratio:.1%} of the MACs are left")
    for training in (False, True):
        mode = "training" if training else "evaluation"
        with subject.judging(f"masked in {mode}"):
            value, gradient = apart(subject, training)
            subject.facts[f"masked_{mode}"] = value
            subject.expect(value <= NEAR, f"differs by {value:.1e} from the masked in {mode}")
            subject.expect(gradient <= 1e-6, f"gradients differ by {gradient:.1e} in {mode}")
    with subject.judging("a training step"):
        step(subject)
    with subject.judging("save and load"), tempfile.TemporaryDirectory() as directory:
        lp.save(subject.small, directory, plan=subject.plan, **subject.given)
        same(subject, lp.load(directory, model=subject.case.build()), "the loaded network")
    with subject.judging("deepcopy"):
        same(subject, copy.deepcopy(subject.small), "its copy")
    with subject.judging("export"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(subject)


def cut(subject: Subject) -> bool:
    """Trace, repair, rank, slim and verify; whether a plan and a small network came out."""
    with subject.judging("trace to verify"):
        graph = lp.trace(subject.model, **subject.given, **subject.options)
        subject.graph = graph = lp.repair(subject.model, graph, **subject.given)
        subject.facts["prunable"] = graph.prunable
        subject.facts["training_checked"] = getattr(graph, "training_checked", None)
        saliency = lp.saliency(subject.model, graph, "l2")
        subject.plan = lp.rank(graph, saliency, lp.Budget(macs=0.5))
        subject.small = lp.slim(subject.model, subject.plan)
        subject.facts["macs_before"] = really_counted(subject, subject.model)
        subject.facts["macs"] = macs = really_counted(subject, subject.small)
        predicted = subject.plan.cost["macs"]
        subject.expect(
            abs(macs - predicted) < 0.5, f"{macs} MACs, but {predicted:g} were predicted"
        )
        error = lp.verify(subject.model, subject.small, subject.plan, **subject.given)
        subject.facts["verify_error"] = error
    return subject.small is not None and "macs" in subject.facts


def call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The output tensors, those of a dictionary or a tuple in their order."""
    out = model(*args, **kwargs)
    if isinstance(out, Tensor):
        return [out]
    return list(out.values() if isinstance(out, Mapping) else out)


def changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: changed(item, change) for key, item in value.items()}
    return tuple(changed(item, change) for item in value) if isinstance(value, tuple) else value


def batch(subject: Subject) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Two images in float64 for each of the inputs."""
    noise = torch.Generator().manual_seed(7)

    def two(image: Tensor) -> Tensor:
        other = image + torch.randn(image.shape, generator=noise)
        return torch.cat([image, other]).double()

    return changed(subject.args, two), changed(subject.kwargs, two)


def with_zeros(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy whose weights are zero where they read a channel that the plan removes."""
    masked = copy.deepcopy(model).double()
    parameters = dict(masked.named_parameters())
    for (name, dim), kept in plan.kept.items():
        weight = parameters.get(name)
        if weight is not None and weight.dim() > 1 and dim == 1:
            gone = sorted(set(range(weight.shape[1])) - set(kept))
            weight.data[:, gone] = 0
    return masked


def apart(subject: Subject, training: bool) -> tuple[float, float]:
    """How far the small network's values and gradients are from those of the masked one."""
    assert subject.plan is not None
    assert subject.small is not None
    plan, given = subject.plan, batch(subject)
    sides = [with_zeros(subject.model, plan), copy.deepcopy(subject.small).double()]
    values = []
    for side in sides:
        side.train(training).requires_grad_(True)
        torch.manual_seed(3)
        values.append(call(side, *given))
    if subject.freed is not None:
        (name, place), whole = subject.freed, values[0]
        whole[place] = whole[place][:, list(plan.kept[name, 0])]
    if [v.shape for v in values[0]] != [v.shape for v in values[1]]:
        raise AssertionError(f"shapes {[tuple(v.shape) for v in values[1]]}")
    for found in values:
        sum(v.square().sum() for v in found).backward()
    whole_gradients = {name: p.grad for name, p in sides[0].named_parameters()}
    worst = 0.0
    for name, parameter in sides[1].named_parameters():
        expected, actual = whole_gradients[name], parameter.grad
        if expected is None:
            continue
        for dim in range(expected.dim()):
            if (name, dim) in plan.kept:
                index = torch.tensor(plan.kept[name, dim])
                expected = expected.index_select(dim, index)
        assert actual is not None, f"{name} has no gradient"
        worst = max(worst, difference(expected, actual))
    return max(map(difference, *values)), worst


def difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    scale = max(float(expected.detach().abs().max()), 1e-6)
    error = float((expected - actual).detach().abs().max()) / scale
    return error if error == error else float("inf")


def step(subject: Subject) -> None:
    """A step of descent in float32 on all outputs, after which it still runs in both modes."""
    small = copy.deepcopy(subject.small).train().requires_grad_(True)
    args, kwargs = (changed(given, Tensor.float) for given in batch(subject))
    optimizer = torch.optim.SGD(small.parameters(), 1e-4)
    sum(v.square().mean() for v in call(small, args, kwargs)).backward()
    optimizer.step()
    for model in (small, small.eval()):
        found = call(model, args, kwargs)
        subject.expect(all(bool(v.isfinite().all()) for v in found), "not finite after a step")


def same(subject: Subject, other: nn.Module, what: str) -> None:
    small = subject.small.eval()
    with torch.no_grad():
        pairs = zip(
            call(small, subject.args, subject.kwargs),
            call(other.eval(), subject.args, subject.kwargs),
            strict=True,
        )
        subject.expect(all(torch.equal(a, b) for a, b in pairs), f"{what} gives other values")


def export(subject: Subject) -> None:
    """Wherever the whole network can be exported, so can the small one."""
    if subject.case.name == "expert by data":
        return
    program = torch.export.export(subject.small.eval(), subject.args, subject.kwargs).module()
    with torch.no_grad():
        pairs = zip(
            call(program, subject.args, subject.kwargs),
            call(subject.small, subject.args, subject.kwargs),
            strict=True,
        )
        subject.expect(all(torch.allclose(a, b, atol=1e-4) for a, b in pairs), "exported: other")


def really_counted(subject: Subject, model: nn.Module) -> int:
    """Multiply-adds by PyTorch's counter, and by hand of deformable convolutions."""
    found = []

    def by_hand(module: nn.Module) -> Callable[..., Tensor]:
        whole = module.forward

        def forward(*args: Tensor) -> Tensor:
            with _disable_current_modes():
                out: Tensor = whole(*args)
            found.append(module.weight.numel() * out.shape[0] * out.shape[2] * out.shape[3])
            return out

        return forward

    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if type(module).__name__ == "DeformConv2d":
            module.forward = by_hand(module)
    # MKL-DNN's recurrent layers are one operator, whose products the counter does not know.
    with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
        macs = counted(copied, lp.Inputs(*subject.args, **subject.kwargs))["macs"]
    return macs + sum(found)


# -- what only one of them must do --------------------------------------------------------------


def auxiliary_head(subject: Subject) -> None:
    pruned(subject)
    if subject.small is not None:
        classes = subject.small.auxiliary.weight.shape[0]
        subject.expect(classes == 6, f"the auxiliary head has {classes} classes")
        outputs = call(subject.small.train(), *[changed(g, Tensor.float) for g in batch(subject)])
        subject.expect(len(outputs) == 2, "one output in training")
        subject.expect(any("auxiliary" in u.tensor for u in subject.graph.untouched),
                       "the auxiliary head's filters are not among what stays")  # fmt: skip


def mixed_in_training(subject: Subject) -> None:
    pruned(subject)
    if subject.plan is not None:
        a, b = (subject.plan.kept.get((f"{n}.0.weight", 0)) for n in "ab")
        subject.expect(a is not None and a == b, "the branches are not coupled")


def two_views(subject: Subject) -> None:
    pruned(subject)
    if subject.small is not None:
        for conv, norm in (("a", "na"), ("b", "nb")):
            channels = getattr(subject.small, conv).out_channels
            features = getattr(subject.small, norm).num_features
            subject.expect(channels == features, f"{features} features for {channels} channels")


def reparametrised(subject: Subject) -> None:
    pruned(subject)
    if subject.small is not None:
        with subject.judging("fusing"):
            small = copy.deepcopy(subject.small).eval()
            rep = small.rep
            subject.expect(rep.in_channels == small.stem[0].out_channels, "stale in_channels")
            subject.expect(rep.out_channels == small.head.in_channels, "stale out_channels")
            x = small.stem(subject.args[0])
            with torch.no_grad():
                error = difference(rep(x), rep.fused()(x).relu())
            subject.expect(error < 1e-4, f"fused differs by {error:.1e}")


def deformable(subject: Subject) -> None:
    pruned(subject)
    if subject.graph is not None:
        free = prunable(subject, "deformed.weight", 0)
        told = [u for u in subject.graph.untouched if u.tensor == "deformed.weight"]
        subject.expect(bool(free or told), "its filters are neither prunable nor listed")
        subject.expect(not subject.graph.uncounted, f"uncounted: {subject.graph.uncounted}")


def prunable(subject: Subject, tensor: str, dim: int) -> list[int]:
    """The groups of a tensor's dimension that can go."""
    groups: set[int] = set()
    for dimension in subject.graph.dimensions:
        if dimension.key == (tensor, dim):
            groups |= {g for g in dimension.channels.tolist() if 0 <= g < subject.graph.prunable}
    return sorted(groups)


def lstm(subject: Subject) -> None:
    pruned(subject)
    if subject.small is not None:
        rnn = subject.small.lstm
        subject.expect(rnn.input_size == rnn.weight_ih_l0.shape[1], "stale input_size")
        subject.expect(rnn.input_size < 32, "its input does not follow the convolutions")
        names = {u.tensor for u in subject.graph.untouched} | {
            d.tensor for d in subject.graph.dimensions
        }
        subject.expect("lstm.weight_hh_l0" in names, "its weights are not in what stays")


def attention(subject: Subject) -> None:
    pruned(subject)
    if subject.graph is None:
        return
    heads = prunable(subject, "qkv.weight", 0)
    subject.expect(bool(heads), "no head can go")
    if heads:
        with subject.judging("half of the heads"):
            keep = np.ones(subject.graph.prunable, dtype=bool)
            keep[heads[::2]] = False
            other = Subject(subject.case, subject.model, subject.args)
            other.plan = PlanBuilder(subject.graph).plan(keep)
            other.small = lp.slim(subject.model, other.plan)
            for training in (False, True):
                value, gradient = apart(other, training)
                subject.expect(max(value, gradient * 1e-3) <= NEAR, f"heads differ: {value:.1e}")


def recurrent_state(subject: Subject) -> None:
    refused = Subject(subject.case, subject.model, subject.args)
    cut(refused)
    said = " ".join(refused.faults)
    subject.expect("output 1 of the model" in said, f"the refusal: {said}")
    subject.expect("10 %" not in said, "the floors are blamed")
    subject.options, subject.freed = {"outputs": {1: "free"}}, ("candidate.weight", 1)
    pruned(subject)


def expert_by_data(subject: Subject) -> None:
    model, generator = subject.model, torch.Generator().manual_seed(2)
    some = [subject.args[0], torch.randn(1, 3, 32, 32, generator=generator)]
    with torch.no_grad():  # a threshold between them
        first, second = (model.gate(model.stem(image).mean((2, 3)))[0] for image in some)
        model.gate.bias -= (first + second) / 2
        images = {}
        for image in some:
            model(image)
            images[model.taken] = image
    subject.expect(len(images) == 2, "no data for the other expert")
    for given in (*images.values(), list(images.values())):
        one = Subject(subject.case, subject.model, ())
        with subject.judging("several examples" if isinstance(given, list) else "one example"):
            graph = lp.repair(one.model, lp.trace(one.model, given), given)
            if not isinstance(given, list) and not graph.prunable:
                reasons = {u.reason for u in graph.untouched}
                subject.expect(
                    any("on data" in r or "on other data" in r for r in reasons),
                    f"the reasons: {reasons}",
                )
                continue  # what feeds the expert that was not seen is left alone
            saliency = lp.saliency(one.model, graph, "l2")
            plan = lp.rank(graph, saliency, lp.Budget(macs=0.8))
            small = lp.slim(one.model, plan).double().eval()
            lp.verify(one.model, small.float(), plan, given)
            masked = with_zeros(one.model, plan).eval()
            for image in images.values():
                error = difference(masked(image.double()), small.double()(image.double()))
                subject.expect(error <= NEAR, f"differs by {error:.1e} on other data")
            subject.facts.setdefault("prunable", graph.prunable)
            subject.facts["training_checked"] = getattr(graph, "training_checked", None)


def padded_channels(subject: Subject) -> None:
    tried = Subject(subject.case, subject.model, subject.args, facts=subject.facts)
    pruned(tried)
    reasons = [u.reason for u in tried.graph.untouched] if tried.graph is not None else []
    told = any("ChannelPad" in r and "pad" in r for r in reasons)
    subject.expect(not tried.faults or told, "; ".join([*tried.faults, *reasons[:2]]))


def wrong_example_size(subject: Subject) -> None:
    try:
        lp.trace(subject.model, subject.args)
    except (ModelError, LcpruneError) as error:
        told = "mat1 and mat2 shapes cannot be multiplied" in str(error)
        subject.expect(told, f"the error: {error}")
    else:
        subject.faults.append("traced")


SPECIAL: dict[str, Callable[[Subject], None]] = {
    "auxiliary head": auxiliary_head,
    "mixed in training": mixed_in_training,
    "two views, affine": two_views,
    "two views": two_views,
    "reparametrised": reparametrised,
    "deformable": deformable,
    "lstm": lstm,
    "attention, scale by attribute": attention,
    "attention, scale by shape": attention,
    "recurrent state": recurrent_state,
    "expert by data": expert_by_data,
    "padded channels": padded_channels,
    "wrong example size": wrong_example_size,
}


def cases(path: Path) -> tuple[Any, ...]:
    """The cases of a file."""
    spec = importlib.util.spec_from_file_location("field_networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: tuple[Any, ...] = module.CASES
    return found


def table(options: argparse.Namespace) -> None:
    latest = {row["network"]: row for row in runner.rows("field")}
    lines = [
        [
            name,
            row.get("prunable", "–"),
            f"{row['ratio']:.1%}" if "ratio" in row else "–",
            *(f"{row[k]:.1e}" if k in row else "–" for k in MEASURED),
            "; ".join(row["faults"]) or row["verdict"],
        ]
        for name, row in latest.items()
    ]
    head = ["network", "groups", "MACs", "verify", "masked", "in training", "verdict"]
    print(runner.markdown(head, lines))


MEASURED = ("verify_error", "masked_evaluation", "masked_training")


def main() -> None:
    bench = runner.Bench("field", __doc__, KEYS, table)
    default = Path(os.environ.get("LCPRUNE_DATA", ".")) / "field" / "networks.py"
    bench.argument("--networks", type=Path, default=default, help="the file of CASES")
    bench.argument("--only", help="the name of one of them")
    options = bench.parse()
    if not options.networks.exists():
        bench.error(f"{options.networks} does not exist; name the file with --networks")
    for case in cases(options.networks):
        if options.only in (None, case.name):
            bench.row({"network": case.name}, lambda case=case: judge(case))


if __name__ == "__main__":
    main()
