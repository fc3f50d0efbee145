"""Lane programs: recorded functions as C++, compared with the operations that were recorded."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lanes import lanes_of, pack_of, resolved, settings_of, tensors, train
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.config import registry
from sweeps.config.settings import build, float_leaves, resolve
from sweeps.training import lane_program
from sweeps.training.cpp import print_cpp
from sweeps.training.lane import Lane
from sweeps.training.lane_program import (
    CompilationFailed,
    LaneProgram,
    Lanes,
    NativeProgram,
    command,
    compile_cpp,
    difference,
    run_once,
    with_slack,
)
from sweeps.training.loops import lower
from sweeps.training.pack import Pack
from sweeps.training.state import RUNNING
from sweeps.training.trainers import LaneTrainer, trial_states


def results_of(function: Callable[..., Any], *arguments: Tensor) -> list[Tensor]:
    """Compile a function, without trials, and return its results for one lane, in poisoned memory."""
    program = LaneProgram(function, arguments, carried=False)
    assert program.is_native, program.not_lowered or program.why_uncompiled
    results = pytree.tree_map(lambda t: torch.full_like(t, 77), program.new_outputs(1))
    leaves = [with_slack(t.unsqueeze(0)) for t in arguments] + pytree.tree_leaves(results)
    program.run(Lanes(leaves, [None] * len(leaves), 1), np.zeros(1, np.int64), np.ones(1, np.int64))
    return [t[0] for t in pytree.tree_leaves(results)]


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_views_pieces_and_joined_tensors_have_the_elements_of_torchs() -> None:
    x, y, small = numbers(12, 9), numbers(9, 12, seed=1), numbers(3, 2, seed=2)

    def moved(x: Tensor, y: Tensor, small: Tensor) -> list[Tensor]:
        flat = torch.cat([x.flatten(), y.flatten()])
        return [
            x.t() + y, x[2:11:3] * 2, x[:, 1:4] - 1, x[5], x[-1, -2], x.flip(0), x.flip(1) + x, flat[5:100] * 3,
            flat.view(24, 9) * 2, flat[:108].view(9, 12).t() + x, flat.reshape(3, 72)[1], torch.stack([x, y.t()], 1),
            torch.stack([x[0], x[1]], -1), torch.cat([x, y.t()], 0), torch.cat([small, small + 1], 1),
            x.unsqueeze(1) * small[0, 0],
            small.expand(3, 2) + 1, x.unbind(0)[3], x.split(5, 0)[2], x.split([2, 7], 1)[1],
            torch.select_scatter(x, y[:, 0], 0, 3),
            torch.nn.functional.pad(small, (1, 1)), x.permute(1, 0).reshape(108)[7:20], torch.diagonal(x[:9]), x.chunk(3)[1],
            x.t().reshape(-1)[::5] * 1,
        ]  # fmt: skip

    for k, (ours, expected) in enumerate(zip(results_of(moved, x, y, small), moved(x, y, small), strict=True)):
        assert ours.shape == expected.shape and torch.equal(ours, expected), k


def test_sums_products_and_extremes_are_those_of_torch_up_to_rounding() -> None:
    x, w, cube = numbers(21, 13), numbers(13, 10, seed=1), numbers(6, 3, 11, seed=2)

    def reduced(x: Tensor, w: Tensor, cube: Tensor) -> list[Tensor]:
        return [
            x.sum(), x.sum(0), x.sum(1), x.mean(), x.mean(1, keepdim=True), cube.sum((0, 2)), cube.sum(1), cube.prod(2),
            x.amax(0), x.amin(1), cube.amax((0, 1)), (x > 0).all(), (x > 0).any(1), (x > -9).all(0), x @ w, (w.t() @ x.t()),
            x @ w[:, 0], torch.bmm(cube, cube.transpose(1, 2)), x.cumprod(0), x.cumsum(1), cube.cumprod(1), x.softmax(1),
            x.log_softmax(0), cube.softmax(1), x.square().mean() + w.abs().sum(), (x[:, :3] @ w[:3]).sum(0), x[:3] @ w,
            torch.where(x > 0, x, torch.zeros_like(x)).sum(0), (x * 2).sum() * x, w.prod(),
        ]  # fmt: skip

    for k, (ours, expected) in enumerate(zip(results_of(reduced, x, w, cube), reduced(x, w, cube), strict=True)):
        torch.testing.assert_close(ours, expected, rtol=2e-5, atol=1e-5, msg=lambda m, k=k: f"result {k}: {m}")


def test_not_a_number_and_infinity_pass_through_as_in_torch() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1.0, 2.0, 3e38, 88.0, -104.0, 1e9])
    one = torch.tensor(0.5)

    def special(x: Tensor, one: Tensor) -> list[Tensor]:
        return [
            x.clamp(-1, 1), torch.clamp(x, min=one), torch.minimum(x, one), torch.maximum(x, one), x.relu(), x.abs(),
            torch.sign(x), torch.isfinite(x), x.isnan(), x.amax(), x[1:].amax(), x.amin(), torch.where(x > 0, x, one), x > one,
            x != x, x.exp().isfinite(), x.log().isfinite(), torch.log1p(x).isfinite(), x.sin().isfinite(), x.tanh(), x.sqrt(),
            x.pow(2), x.pow(-1.0), torch.floor(x), x.sigmoid(), torch.expm1(x),
        ]  # fmt: skip

    for k, (ours, expected) in enumerate(zip(results_of(special, x, one), special(x, one), strict=True)):
        torch.testing.assert_close(ours, expected, rtol=3e-6, atol=0, equal_nan=True, msg=lambda m, k=k: f"result {k}: {m}")


def test_whole_numbers_doubles_and_truth_values_compute_as_in_torch() -> None:
    k, d, b = torch.arange(-9, 9), numbers(18).double(), numbers(18) > 0

    def mixed(k: Tensor, d: Tensor, b: Tensor) -> list[Tensor]:
        return [
            k * 3 - 1, k % 5, (k % -4), k.to(torch.float32) / 3, k.to(torch.int32) << 3, k.to(torch.int32) >> 1, k & 6, k ^ 3,
            d * 2 + k, d.to(torch.float32), d.sqrt().isnan(), d.exp(), d.abs().log(), d.abs() ** 1.7, (d > 0) & b, b | (k > 0),
            k.to(torch.int32).view(6, 3).cumsum(1), (k > 0).view(6, 3).cumsum(-1), k.to(torch.int32).view(6, 3).cumprod(1),
            ~b, b.to(torch.float32).sum(), b.sum(), k.sum(), (k + 1).prod(), k == 3, torch.floor(d), b.to(torch.int64) + k,
        ]  # fmt: skip

    for number, (ours, expected) in enumerate(zip(results_of(mixed, k, d, b), mixed(k, d, b), strict=True)):
        assert ours.dtype == expected.dtype
        torch.testing.assert_close(
            ours, expected, rtol=1e-6 if ours.dtype == torch.float32 else 1e-13, atol=0, equal_nan=True,
            msg=lambda m, n=number: f"result {n}: {m}",
        )  # fmt: skip


UNITS_IN_LAST_PLACE = {
    "exp": (torch.exp, -87.0, 88.0, 1.5), "log": (torch.log, 1e-37, 1e6, 1.5), "tanh": (torch.tanh, -10.0, 10.0, 2.5),
    "sin": (torch.sin, -1e4, 1e4, 1.5), "cos": (torch.cos, -1e4, 1e4, 1.5), "log1p": (torch.log1p, -0.999, 10.0, 2.5),
    "expm1": (torch.expm1, -5.0, 20.0, 3.5), "pow": (lambda x: x**1.37, 1e-3, 1e3, 1.1),
    "sigmoid": (torch.sigmoid, -20.0, 20.0, 3.0),
}  # fmt: skip


def test_elementary_functions_are_as_accurate_as_stated_and_equal_in_vectors_and_single_numbers() -> None:
    functions = [entry[0] for entry in UNITS_IN_LAST_PLACE.values()]
    ranges = torch.tensor([[low, high] for _, low, high, _ in UNITS_IN_LAST_PLACE.values()], dtype=torch.float64)
    u = torch.rand(len(functions), 4096, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (ranges[:, :1] + u * (ranges[:, 1:] - ranges[:, :1])).to(torch.float32)

    def every(x: Tensor) -> list[Tensor]:
        return [function(row) for function, row in zip(functions, x.unbind(0), strict=True)]

    wide, single = results_of(every, x), results_of(every, x[:, :3].contiguous())
    for (name, (function, *_, most)), row, ours, few in zip(UNITS_IN_LAST_PLACE.items(), x, wide, single, strict=True):
        exact = function(row.double())
        unit = torch.nextafter(exact.abs().float(), torch.tensor(math.inf)).double() - exact.abs().float().double()
        error = ((ours.double() - exact).abs() / unit).max().item()
        assert error <= most, f"{name}: {error:.2f} units in the last place"
        assert torch.equal(ours[:3], few), name


def test_a_logarithm_does_not_depend_on_the_other_elements_of_its_vector() -> None:
    """Vectors of normal positive numbers take a shorter way."""
    x = torch.linspace(1e-3, 50.0, 64)
    others = torch.tensor([0.0, -1.0, 1e-40, math.inf, math.nan])
    mixed = x.clone()
    mixed[[3, 17, 30, 41, 63]] = others
    ours, among = (results_of(lambda x: [x.log()], x)[0] for x in (x, mixed))
    same = mixed == x
    assert same.sum() == 59 and torch.equal(ours[same], among[same])
    torch.testing.assert_close(among[~same], others.log(), equal_nan=True, rtol=1e-6, atol=0)


def test_tanh_and_its_gradient_end_where_torchs_do() -> None:
    x = torch.linspace(8.5, 9.5, 401)

    def saturated(x: Tensor) -> list[Tensor]:
        y = x.tanh()
        return [y == 1, 1 - y * y == 0]

    expected = saturated(x)
    for ours, theirs in zip(results_of(saturated, x), expected, strict=True):
        assert (ours != theirs).sum() <= 1  # one unit in the last place at most


def test_a_state_whose_parts_change_places_is_carried_correctly() -> None:
    """Every part's next value is another part's present one: none may be overwritten before it is read."""
    state = {"a": numbers(9), "b": numbers(9, seed=1), "c": numbers(2, 9, seed=2)}

    def rotated(state: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        return {"a": state["b"].flip(0), "b": state["c"][0] + x, "c": torch.stack([state["a"], state["a"].cumsum(0)])}

    program = LaneProgram(rotated, (state, torch.tensor(0.5)), carried=True)
    leaves = [with_slack(t.unsqueeze(0)) for t in (*state.values(), torch.tensor(0.5))]
    program.run(Lanes(leaves, [None] * 4, 1), np.zeros(1, np.int64), np.full(1, 5))
    expected = state
    for _ in range(5):
        expected = rotated(expected, torch.tensor(0.5))
    for ours, value in zip(leaves, expected.values(), strict=False):
        torch.testing.assert_close(ours[0], value)


# ---- structures -------------------------------------------------------------------------------------------------------

STATIC: dict[str, Any] = {"name": "static", "operation": "mul"}
STRUCTURES: dict[str, dict[str, Any]] = {
    "nmu with dropout, noise and clips": resolved(
        {"name": "nmu", "dropout": 0.1}, STATIC, steps=10**6, gradient_noise=0.01, clip_norm=1.0, clip_value=0.1
    ),
    "nalu": resolved("nalu", STATIC, steps=10**6),
    "gated nmu, a product over all inputs": resolved("gated_nau_nmu", {**STATIC, "input_size": 20}, steps=10**6),
    "npu, division, sgd": resolved("npu", {**STATIC, "operation": "div"}, steps=10**6, optimizer="sgd", momentum=0.9),
    "tanh in a multilayer perceptron, adamax": resolved("tanh", {"name": "identity"}, steps=10**6, optimizer="adamax"),
    "inalu, one layer": resolved("inalu", {"name": "single_module", "operation": "mul"}, steps=10**6),
    "gumbel, softmax": resolved("gumbel_nac", {"name": "pair_functions"}, steps=10**6),
    "falling learning rate": resolved(
        "linear", STATIC, steps=10**6, lr_decay={"rule": "two_worse", "period": 3}
    ),
}  # fmt: skip


def trainer_of(settings: dict[str, Any], seeds: range = range(1), **options: Any) -> LaneTrainer:
    pack = Pack([Lane(str(seed), settings, seed) for seed in seeds], 3, build, frozenset(), **options)
    assert pack._fill() == []
    assert isinstance(pack.trainer, LaneTrainer)
    return pack.trainer


def follow(settings: dict[str, Any], steps: int) -> None:
    """Compare every one of a lane's first steps with the recorded operations, from the state that the program has reached.

    Trajectories drift apart, since the smallest difference grows; single steps do not.
    """
    follow_trainer(trainer_of(settings), steps)


def arguments_of_first(trainer: LaneTrainer) -> list[Tensor]:
    """The step's arguments for the first lane, with the weights that were drawn for it."""
    program = trainer._step_program()
    drawn = pytree.tree_leaves(trainer._of_first("state"))
    assert len(drawn) == program.num_carried
    return [*drawn, *(t.clone() for t in program.arguments[len(drawn) :])]


def follow_trainer(trainer: LaneTrainer, steps: int) -> None:
    program = trainer._step_program()
    assert program.is_native and program.why_uncompiled is None
    example = pytree.tree_unflatten([t.clone() for t in program.arguments], program._spec)
    graph, *_ = program._graph(example)
    generator, n = torch.Generator().manual_seed(3), program.num_carried
    arguments = arguments_of_first(trainer)
    for step in range(steps):
        with torch.no_grad():
            expected = graph(*(t.clone() for t in arguments))
        new = run_once(program._native, arguments, n, expected)
        if any(difference(value, want, [want]) for value, want in zip(new, expected, strict=True)):  # more than rounding
            with torch.no_grad():
                changed = [graph(*(lane_program._jittered(t, generator) for t in arguments)) for _ in range(2)]
            for k, (value, want, *others) in enumerate(zip(new, expected, *changed, strict=True)):
                assert difference(value, want, others) is None, (step, k, difference(value, want, others))
        arguments[:n] = [t.clone() for t in new[:n]]
    state = pytree.tree_unflatten(arguments, program._spec)[0]
    assert int(state["step"]) == steps or int(state["status"]) != RUNNING  # such as products of the identity task's inputs


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_lanes_first_steps_are_those_of_the_recorded_operations(name) -> None:
    follow(STRUCTURES[name], 8)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", STRUCTURES)
def test_two_hundred_steps_are_those_of_the_recorded_operations(name) -> None:
    follow(STRUCTURES[name], 200)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("unit", "operation"), [("nau", "add"), ("nmu", "mul"), ("nalu", "add"), ("npu", "div")])
def test_whole_runs_end_as_those_of_the_recorded_operations(unit, operation) -> None:
    """Rounding differs from the first step on; what is reported of 3,000 steps does not, up to a thousandth of an error."""
    task = {"name": "single_module", "operation": operation}
    lanes = lanes_of(resolved(unit, task, steps=3000, lr=0.01, evaluate_every=100), range(4))
    for ours, plain in zip(train(lanes, compiled=True).values(), train(lanes).values(), strict=True):
        assert (ours.outcome, ours.converged_at, ours.steps) == (plain.outcome, plain.converged_at, plain.steps)
        for name, error in plain.error.items():
            assert ours.error[name] == pytest.approx(error, rel=1e-3, abs=1e-8), name


def test_a_lane_has_the_same_bits_alone_and_among_many_in_any_place_and_with_several_threads() -> None:
    settings = STRUCTURES["nmu with dropout, noise and clips"]
    every, seed = np.arange(23), 11
    alone = trainer_of(settings, range(seed, seed + 1))
    alone.train(np.zeros(1, np.int64), np.full(1, 300))
    for threads in (1, 2):
        among = trainer_of(settings, range(23), threads=threads)
        among.train(every[::-1].copy(), np.full(23, 100))
        among.train(every[5:15], np.full(10, 200))
        for one, others in zip(pytree.tree_leaves(alone.state), pytree.tree_leaves(among.state), strict=True):
            assert torch.equal(one[0], others[seed])


def test_the_bits_do_not_depend_on_the_instruction_set(tmp_path: Path) -> None:
    """Built for AVX-512, for AVX2 and for neither: what the same text gives (the first only where the machine has it)."""
    for name in ("nmu with dropout, noise and clips", "nalu"):
        trainer = trainer_of(STRUCTURES[name])
        program = trainer._step_program()
        example = pytree.tree_unflatten([t.clone() for t in program.arguments], program._spec)
        graph, *_ = program._graph(example)
        source = print_cpp(lower(graph, program.num_carried))
        states = []
        narrower = [[], ["-mno-avx512f"], ["-mno-avx", "-O1"]] if "-mavx2" in command() else [[], ["-O1"]]
        for k, extra in enumerate(narrower):
            (folder := tmp_path / f"{name[:4]} {k}").mkdir()
            native = NativeProgram(compile_cpp(source, folder, extra), len(program.arguments))
            arguments = [with_slack(t) for t in arguments_of_first(trainer)]
            native.run(np.array([[t.data_ptr() for t in arguments]]), np.full(1, 50))
            states.append(arguments)
        for other in states[1:]:
            for one, two in zip(states[0], other, strict=True):
                assert torch.equal(one.view(-1).view(torch.uint8), two.view(-1).view(torch.uint8))


def _replaced(old: str, new: str, *also: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        for known in (old, *also):
            assert known in text, f"the printed text has no {known!r}"
            text = text.replace(known, new)
        return text

    return changed


INJECTED = {
    "a sum that leaves out a partial sum": _replaced("x = of(x, moved(x, 4))", "x = x"),
    "a rotation of the generator by another number": _replaced("ROUND(17) ROUND(29)", "ROUND(17) ROUND(28)"),
    "a product without its sum": _replaced("_0 = fma_(V(", "_0 = 0.0f * fma_(V("),
    "a loop that ends too early": _replaced("i128 < 128;", "i128 < 112;"),
    "another number of rows": _replaced("(0x1.0000000000000p+7f)", "(0x1.0000000000000p+6f)"),
    "a choice of the other value": _replaced("INLINE vf select_(vi m, vf x, vf y) { return m ? x : y; }",
                                            "INLINE vf select_(vi m, vf x, vf y) { return m ? y : x; }"),
    "an element written to its neighbour's place": _replaced("store(w->", "store(1 + w->"),
    "a state that is not written back": _replaced("p[d0 * 100 + d1] = w->", "p[0] = w->"),
    "a root that is half of the number": _replaced("(vf)_mm256_sqrt_ps((__m256)x)", "x * 0.5f",
                                                   "(vf)_mm512_sqrt_ps((__m512)x)"),
    "a comparison that is the other way round": _replaced("COMPARE(ge_, >=)", "COMPARE(ge_, <)"),
    "a power of another base": _replaced("r = exp_f64(y * log_f64(abs_(x)));", "r = exp_f64(y * log_f64(abs_(x) * 0.999));"),
    "a unit that is not drawn": _replaced("second_(WordsOfVector w) { return (vi)w.b; }",
                                          "second_(WordsOfVector w) { return (vi)w.a; }"),
}  # fmt: skip


@pytest.mark.parametrize("fault", INJECTED)
def test_a_program_with_a_fault_is_found_out_before_it_is_used(fault, monkeypatch, tmp_path: Path) -> None:
    """The reference and the program differ: training goes on with the recorded operations, and says why."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(lane_program, "print_cpp", lambda *arguments: INJECTED[fault](print_cpp(*arguments)))
    monkeypatch.setattr(LaneProgram, "_record", lambda *arguments: None)  # torch's compiler would take over
    trainer = trainer_of(resolved({"name": "nmu", "dropout": 0.1}, STATIC, steps=10**6))
    trainer.programs().step = None
    program = trainer._step_program()
    assert not program.is_native
    assert program.not_lowered.startswith("a program that disagrees with the recorded operations")


# ---- without a lowering, without a compiler, without room -------------------------------------------------------------


def test_an_operation_without_a_lowering_is_named_and_the_lane_is_trained_all_the_same(tmp_path: Path, caplog) -> None:
    source = "import torch\nfrom arith_models.units.activations import Linear\n\nclass Sorted(Linear):\n"
    source += "    def activation(self, x):\n        return torch.sort(x, dim=0).values\n"
    (tmp_path / "sorted_unit.py").write_text(source)
    settings = settings_of(str(tmp_path / "sorted_unit.py"), steps=10)
    pack = pack_of(lanes_of(settings, range(2)), compiled=True)
    results = [result for _ in range(3) for result in pack.advance()]
    assert {result.outcome for result in results} == {"unsolved"} and len(results) == 2
    assert "no lane program is used for results of sort" in caplog.text
    plain = pack_of(lanes_of(settings, range(2)), compiled=False)
    for one, other in zip(results, [result for _ in range(3) for result in plain.advance()], strict=True):
        for name, tensor in tensors(one).items():
            torch.testing.assert_close(tensor, tensors(other)[name], rtol=1e-4, atol=1e-5)


def tripled(x: Tensor) -> Tensor:
    return (x * 3.0).sum()


def test_a_program_that_another_process_compiled_is_loaded_without_recording_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x = numbers(30)
    LaneProgram(tripled, (x,), carried=False, identity="tripled")
    monkeypatch.setattr(lane_program, "make_fx", None)
    monkeypatch.setattr(lane_program, "compile_cpp", None)
    again = LaneProgram(tripled, (x,), carried=False, identity="tripled")
    assert again.is_native and again.new_outputs(4).shape == (4,)


READY = """
import sys
from lanes import lanes_of, pack_of, settings_of
from sweeps.runner.worker import prepare_process

prepare_process()
pack = pack_of(lanes_of(settings_of("nau"), range(3)), compiled=True, source="of this test")
pack.advance()
print(pack.why_uncompiled, [name for name in ("torch._dynamo.symbolic_convert", "torch._inductor") if name in sys.modules])
"""


def test_a_process_that_finds_its_programs_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    said = [
        subprocess.run([sys.executable, "-c", READY], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert "symbolic_convert" in said[0]  # which records
    assert said[1] == "None []\n"


def test_a_kept_file_that_is_damaged_or_writable_for_others_is_not_loaded(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    x = numbers(31)
    LaneProgram(tripled, (x,), carried=False)
    (library,) = tmp_path.rglob("*.so")
    library.write_bytes(b"no library")
    assert LaneProgram(tripled, (x,), carried=False).is_native
    assert library.read_bytes() != b"no library"
    library.parent.chmod(0o777)
    library.write_bytes(b"somebody else's")
    assert LaneProgram(tripled, (x,), carried=False).is_native
    assert library.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("missing", ["/nowhere/g++", "/bin/false"])
def test_without_a_compiler_the_recorded_operations_run_and_the_reason_is_known(missing, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(lane_program, "command", lambda: (missing, "-O2"))
    program = LaneProgram(tripled, (numbers(32),), carried=False)
    assert not program.is_native and missing in program.why_uncompiled
    results = program.new_outputs(1)
    program.run(Lanes([numbers(1, 32), results], [None, None], 1), np.zeros(1, np.int64), np.ones(1, np.int64))
    torch.testing.assert_close(results[0], tripled(numbers(1, 32)))


def test_a_full_temporary_folder_is_no_reason_not_to_compile(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    made = lane_program.tempfile.mkdtemp

    def full(*arguments: Any, dir: Any = None, **options: Any) -> str:
        if str(dir) != "/dev/shm":
            raise OSError(28, "No space left on device")
        return made(*arguments, dir=dir, **options)

    monkeypatch.setattr(lane_program.tempfile, "mkdtemp", full)
    assert LaneProgram(tripled, (numbers(33),), carried=False).is_native
    monkeypatch.setattr(lane_program.tempfile, "mkdtemp", lambda *a, **o: (_ for _ in ()).throw(OSError(28, "No space")))
    without = LaneProgram(tripled, (numbers(34),), carried=False)
    assert "there is no room to compile" in without.why_uncompiled


def test_programs_are_compiled_where_the_cache_cannot_be_written(monkeypatch, tmp_path: Path) -> None:
    files = lane_program.ProgramFiles
    monkeypatch.setattr(files, "_write", lambda *arguments: None)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    assert LaneProgram(tripled, (numbers(35),), carried=False, identity="x").is_native
    assert not list(tmp_path.rglob("*.so"))


def test_trial_states_have_other_weights_and_steps_and_numbers_that_are_not_finite() -> None:
    trainer = trainer_of(STRUCTURES["nalu"])
    states = trial_states(pytree.tree_map(lambda t: t[0], trainer.state))
    assert len({int(s["step"]) for s in states}) >= 4
    assert sum(any(not p.isfinite().all() for p in s["params"].values()) for s in states) == 2
    assert set(float_leaves(STRUCTURES["nalu"])) and CompilationFailed


TASKS = ("static", "single_module", "identity", "pair_functions")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("unit", [name for name in registry.names("model") if registry.learnable_task(name) == "static"])
def test_every_unit_of_the_catalog_is_trained_and_evaluated_by_programs_in_every_static_task(unit) -> None:
    """They have a lowering, and agree with the recorded operations on all trial states and over 200 steps."""
    found = 0
    for task in TASKS:
        settings, faults, _ = resolve({"model": unit, "task": task, "train": {"steps": 1000}})
        if settings is None:  # a unit may have no network for a task
            assert faults
            continue
        trainer = trainer_of(settings)
        trainer.prepare()
        programs = trainer.programs()
        assert programs.why_uncompiled is None
        for program in (programs.step, programs.evaluate):
            assert program is not None and program.is_native, f"{task}: {program and program.not_lowered}"
        follow_trainer(trainer, 200)
        found += 1
    assert found >= 3


def test_what_would_trap_or_mean_something_else_here_is_computed_or_refused(monkeypatch) -> None:
    whole, shorter = torch.arange(9), torch.arange(3, 12)
    assert torch.equal(results_of(lambda k, m: k % (m + 1), whole, shorter)[0], whole % (shorter + 1))  # padding divides by 0
    truth = torch.tensor([True, False, True, False, False]), torch.tensor([False, False, True, True, False])
    for ours, expected in zip(results_of(lambda a, b: [a < b, a >= b, a == b], *truth), (truth[0] < truth[1],), strict=False):
        assert torch.equal(ours, expected)
    monkeypatch.setattr(LaneProgram, "_record", lambda *arguments: None)
    for function in (
        lambda x: x % 1.0,
        lambda x: x.view(torch.int32),
        lambda x: (x > 0).to(torch.int64).amax(),
        lambda x: x[:0].sum(),
    ):
        program = LaneProgram(function, (numbers(12),), carried=False)
        assert not program.is_native and program.not_lowered is not None and program.why_uncompiled is None


def test_a_kept_description_that_is_no_description_is_made_again(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    LaneProgram(tripled, (numbers(36),), carried=False, identity="tripled")
    (description,) = tmp_path.rglob("*.json")
    for text in ("{}", "[]", '{"source": null}', "{"):
        description.write_text(text)
        assert LaneProgram(tripled, (numbers(36),), carried=False, identity="tripled").is_native


def test_without_the_header_nothing_is_trained_rather_than_slowly_with_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise FileNotFoundError("lane.h")

    monkeypatch.setattr(lane_program, "header", missing)
    with pytest.raises(FileNotFoundError, match="lane.h"):
        LaneProgram(lambda x: x + 1, (numbers(3),), carried=False)
