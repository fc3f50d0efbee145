"""Workers with a GPU or a part of one: sizes of packs, and a real Ray that assigns declared GPUs.

There is no GPU here. torch's count of GPUs is declared, Ray assigns as many, and workers compute on the CPU instead, under a
CPU's numerics (`Driver(device="cpu")`); all else is what runs with real ones. What a pack of a real GPU has is tested with
declared properties.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from commands import call, plain
from kept import records_of
from rich.console import Console

from sweeps.config.settings import build, resolve
from sweeps.config.sweep_file import MOST_WORKERS_PER_GPU, Resources, from_document
from sweeps.errors import ClusterError
from sweeps.results import as_json, report
from sweeps.runner import ray_tune
from sweeps.runner import run as run_module
from sweeps.runner.driver import Driver, PackRequest
from sweeps.runner.gpu import CONTEXT_BYTES, WAVES, Footprint, Gpu, keep_to_share, most_lanes
from sweeps.runner.worker import PackRun
from sweeps.store import Store
from sweeps.training.cuda import RESIDENT, SCRATCH_BYTES
from sweeps.training.lane import Lane

GB = 1024**3
H200 = Gpu("NVIDIA H200", 132, 2048, 139 * GB)
L4 = Gpu("NVIDIA L4", 58, 1536, 22 * GB)
T4 = Gpu("Tesla T4", 40, 1024, 15 * GB)
SMALL = Footprint(of_lane=100_000, of_pack=3 * GB)
DOCUMENT: dict[str, Any] = {
    "name": "s",
    "task": {"name": "static", "input_size": 10},
    "model": "nau",
    "train": {"steps": 20, "batch": 8, "evaluate_every": 10},
    "seeds": 16,
}


# ---- sizes, from declared properties


def test_a_pack_is_a_whole_number_of_waves_and_thousands_of_lanes_on_a_large_gpu() -> None:
    assert [gpu.wave for gpu in (H200, L4, T4)] == [132 * RESIDENT, 58 * RESIDENT, 40 * RESIDENT]
    for gpu in (H200, L4, T4):
        assert most_lanes(gpu, 1.0, SMALL) == WAVES * gpu.wave
    assert most_lanes(H200, 1.0, SMALL) == 3168


def test_a_multiprocessor_with_few_threads_has_fewer_blocks_of_a_wave() -> None:
    assert dataclasses.replace(T4, threads=600).wave == 40 * 2
    assert dataclasses.replace(T4, threads=200).wave == 40, "a block waits rather than a multiprocessor"


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_that_share_a_gpu_have_as_many_lanes_together_as_one_worker(workers) -> None:
    assert workers * most_lanes(H200, 1 / workers, SMALL) == most_lanes(H200, 1.0, SMALL)


def test_a_small_part_of_a_gpu_still_has_a_whole_wave() -> None:
    assert most_lanes(H200, 1 / 32, SMALL) == H200.wave


def test_memory_bounds_a_pack_to_whole_waves_and_at_last_to_one_lane() -> None:
    of_lane, of_pack = 2 * 1024**2, SCRATCH_BYTES
    lanes = most_lanes(T4, 1.0, Footprint(16 * of_lane, of_pack))
    assert lanes == 360 and lanes % T4.wave == 0
    assert (lanes + T4.wave) * 16 * of_lane + of_pack + CONTEXT_BYTES > T4.memory_bytes
    assert most_lanes(T4, 0.5, Footprint(16 * of_lane, of_pack)) == 120
    assert most_lanes(T4, 1.0, Footprint(GB, of_pack)) == 12, "less than a wave is not rounded"
    assert most_lanes(T4, 1.0, Footprint(100 * GB, of_pack)) == 1


def lanes_of(document: dict[str, Any], seeds: range = range(2)) -> list[Lane]:
    settings, faults, _ = resolve({part: document[part] for part in ("task", "model", "train")})
    assert settings is not None, faults
    return [Lane(f"seed {seed}", settings, seed) for seed in seeds]


def test_the_bytes_of_a_lane_are_those_of_its_state_its_best_state_and_its_own_data() -> None:
    """pair_functions: no data of a lane's own. With Adam: weights and two moments, and the best weights."""
    own = {**DOCUMENT, "task": {"name": "pair_functions"}}
    found = Footprint.of(lanes_of(own), build)
    built = build(lanes_of(own)[0].settings)
    weights = sum(p.numel() for p in built.model().parameters())
    besides = 8 + 8 + 4 + 8 + 4  # step, status, last error, restarted at, mean loss
    assert found.of_lane == 4 * 4 * weights + besides
    with_targets = Footprint.of(lanes_of(DOCUMENT), build)
    task = build(lanes_of(DOCUMENT)[0].settings).task
    rows = sum(len(task.evaluation_inputs(split)) for split in task.splits)
    assert with_targets.of_lane > 3 * 4 * rows, "static: every seed has targets of its own"
    assert with_targets.of_pack == SCRATCH_BYTES + 3 * 4 * 10 * rows


def test_inputs_of_several_ranges_are_in_memory_once_each() -> None:
    one, other = (
        lanes_of({**DOCUMENT, "task": {**DOCUMENT["task"], "extrapolation": [2, most]}}, range(k, k + 1))[0]
        for k, most in enumerate((6, 7))
    )
    alone, both = Footprint.of([one], build), Footprint.of([one, other], build)
    assert both.of_pack - SCRATCH_BYTES == 2 * (alone.of_pack - SCRATCH_BYTES) and both.of_lane == alone.of_lane


def test_networks_that_repeat_a_cell_lay_inputs_out_for_every_lane() -> None:
    recurrent = {**DOCUMENT, "task": {"name": "recurrent"}, "model": {"name": "nau"}}
    lanes = lanes_of(recurrent)
    task = build(lanes[0].settings).task
    inputs = sum(task.evaluation_inputs(split).size for split in task.splits)
    assert Footprint.of(lanes, build).of_lane > 3 * 4 * inputs


def test_a_process_is_limited_to_its_part_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(Gpu, "here", lambda: L4)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    keep_to_share(0.5)
    keep_to_share(1 / 50)
    assert limits[0] == pytest.approx(0.5 - 1 / 22) and limits[1] == pytest.approx(0.01), "some is left, however small"


# ---- the driver, and workers in this process


@contextmanager
def started(folder: Path, device: str | None = "cpu", workers: int = 1, **changes: Any) -> Iterator[Driver]:
    """The driver of a new sweep."""
    sweep = from_document({**DOCUMENT, **changes})
    with Store(folder) as store, store.hold(sweep.name):
        store.begin_sweep(sweep.name, sweep.text, sweep.document)
        driver = Driver(sweep, sweep.name, store, None, workers, device=device)
        driver.begin()
        yield driver


def pack(driver: Driver, number: int, num_free: int = 1) -> PackRequest:
    request = driver.next_pack(f"pack {number}", num_free)
    assert request is not None
    return request


@pytest.mark.parametrize(("gpus", "slots"), [(1, 4096), (0.5, 2048), (0.33, 1365), (0, 100)])
def test_before_a_worker_has_seen_its_gpu_a_pack_has_its_part_of_4096_lanes(tmp_path, gpus, slots) -> None:
    with started(tmp_path, resources={"gpus": gpus}, seeds=9000) as driver:
        assert driver.slots == slots and len(pack(driver, 0).lanes) == slots


def test_two_gpus_share_the_lanes_evenly_however_large_they_are(tmp_path) -> None:
    with started(tmp_path, resources={"gpus": 1}, workers=2) as driver:
        assert [len(pack(driver, k, num_free=2 - k).lanes) for k in range(2)] == [8, 8]


def test_workers_that_are_free_share_the_lanes_that_a_sweep_lacks(tmp_path, monkeypatch) -> None:
    """Of a sweep that is continued, for instance: one pack could have them all, and the other GPU would have none."""
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}])
    with started(tmp_path, resources={"gpus": 1}, workers=2, seeds=1000) as driver:
        driver.slots = 4096
        driver._queued = dict(list(driver._queued.items())[:100])
        capacity = ray_tune.WorkerCapacity(driver.sweep.resources, None)
        searcher = ray_tune._PackSearcher(ray_tune._Session(driver, capacity, lambda: None))
        sent = [searcher.suggest(f"trial {k}") for k in range(3)]
        assert [len(trial["request"].unpickled().lanes) for trial in sent[:2]] == [50, 50] and sent[2] is None
    with started(tmp_path / "fixed", resources={"gpus": 1, "slots": 90}, workers=2, seeds=100) as driver:
        assert len(pack(driver, 0, num_free=2).lanes) == 90, "as the file says"


def as_on_gpu(request: PackRequest) -> PackRequest:
    """The request of a worker with a GPU, computed on the CPU: only the device is another."""
    return dataclasses.replace(plain(request), sized_by_worker=True)


def test_a_worker_returns_at_once_the_lanes_that_are_too_many_for_its_gpu_and_others_train_them(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Gpu, "here", lambda: Gpu("small", 1, 2048, 15 * GB))  # a wave of 3 lanes
    monkeypatch.setattr("sweeps.runner.gpu.WAVES", 2)
    with started(tmp_path, resources={"gpus": 1}) as driver:
        sizes, number = [], 0
        request: PackRequest | None = pack(driver, number)
        while request is not None:
            run, first = PackRun(as_on_gpu(request)), True
            while not run.done:
                found = run.work()
                assert not found.returned or (first and not found.results and not found.checkpoints)
                driver.receive(request.pack_id, found)
                first = False
            driver.pack_ended(request.pack_id)
            sizes.append(len(request.lanes))
            number += 1
            request = driver.next_pack(f"pack {number}")
        assert driver.done and driver.lanes_done == 16 and driver.common_error is None
        assert sizes == [16, 6, 4], "the first is what the driver knows, the others what the worker took"
        results = [
            result for cell in driver.cells for entry in cell.configurations.values() for result in entry.results.values()
        ]
        assert {result.outcome for result in results} <= {"solved", "unsolved"} and len(results) == 16


def test_lanes_that_are_returned_have_lost_no_worker(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Gpu, "here", lambda: Gpu("small", 1, 2048, 100))  # bytes: no memory for two
    with started(tmp_path, resources={"gpus": 1}, seeds=5) as driver:
        request = pack(driver, 0)
        driver.receive(request.pack_id, PackRun(as_on_gpu(request)).work())
        assert len(driver._queued) == 4 and {queued.losses for queued in driver._queued.values()} == {0}


def test_the_size_of_a_gpu_does_not_change_the_report(tmp_path, monkeypatch) -> None:
    texts = []
    for waves in (1, 3):
        monkeypatch.setattr(Gpu, "here", lambda: Gpu("small", 1, 2048, 15 * GB))
        monkeypatch.setattr("sweeps.runner.gpu.WAVES", waves)
        with started(tmp_path / str(waves), resources={"gpus": 0.5}, seeds=7) as driver:
            number = 0
            while (request := driver.next_pack(f"pack {number}", 2)) is not None:
                run = PackRun(as_on_gpu(request))
                while not run.done:
                    driver.receive(request.pack_id, run.work())
                driver.pack_ended(request.pack_id)
                number += 1
            assert driver.done
            texts.append(as_json(report(driver.store, "s"), timing=False))
    assert texts[0] == texts[1]


def test_a_sweep_that_names_its_slots_has_them_on_every_gpu(tmp_path) -> None:
    with started(tmp_path, device=None, resources={"gpus": 1, "slots": 5}) as driver:
        request = pack(driver, 0)
        assert not request.sized_by_worker and (request.device, request.gpus) == ("cuda", 1.0)
    with started(tmp_path / "auto", device=None, resources={"gpus": 1}) as driver:
        assert pack(driver, 0).sized_by_worker


@pytest.mark.skipif(torch.cuda.is_available(), reason="a worker here has a GPU")
def test_a_worker_whose_torch_finds_no_gpu_trains_nothing_and_says_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with started(tmp_path, device=None, resources={"gpus": 1}) as driver:
        run = PackRun(pack(driver, 0))
        found = run.work()
        assert run.done and not found.results
        with pytest.raises(
            ClusterError, match=r"finds no GPU there, and Ray gave it GPU 3\. Install a torch .* built for CUDA"
        ):
            driver.receive("pack 0", found)


# ---- what a file may say


@pytest.mark.parametrize(
    ("given", "workers"), [(1, 1), (0.5, 2), (0.33, 3), (0.3333, 3), (0.25, 4), (0.16, 6), (0.1, 10), (0.02, 50)]
)
def test_a_part_of_a_gpu_is_one_of_so_many_that_fit_on_it_exactly(given, workers) -> None:
    resources = from_document({**DOCUMENT, "resources": {"gpus": given}}).resources
    assert resources.workers_per_gpu == workers
    assert workers * resources.gpus <= 1 < workers * resources.gpus + 0.005
    assert ray_tune.workers_on({"CPU": 200.0, "GPU": 2.0}, resources) == 2 * workers


def test_every_whole_part_of_a_gpu_can_be_written() -> None:
    for workers in range(1, MOST_WORKERS_PER_GPU + 1):
        text = f"{10_000 // workers / 10_000:g}"
        assert from_document({**DOCUMENT, "resources": {"gpus": float(text)}}).resources.workers_per_gpu == workers


def test_no_worker_has_parts_of_two_gpus() -> None:
    assert ray_tune.workers_on({"CPU": 9.0, "GPU": 3.0}, Resources(gpus=0.5)) == 6
    assert ray_tune.workers_on({"CPU": 4.0, "GPU": 3.0}, Resources(gpus=0.5)) == 4
    assert ray_tune.workers_on({"CPU": 9.0, "GPU": 0.5}, Resources(gpus=0.5)) == 0, "a part of a GPU that Ray was given"
    assert ray_tune.workers_on({"CPU": 9.0}, Resources(gpus=1)) == 0


# ---- capacity


@pytest.mark.parametrize(
    ("node", "maximum", "said"),
    [
        ({"CPU": 4.0, "GPU": 2.0}, None, None),
        ({"CPU": 8.0, "GPU": 2.0}, 3, "the GPUs are for 4 workers of 0.5, and there are 3, as `--workers` says"),
        ({"CPU": 3.0, "GPU": 2.0}, None, "and there are 3: the nodes have no more CPUs, or memory. Make `resources.cpus`"),
        ({"CPU": 3.0, "GPU": 2.0}, 9, "and there are 3: the nodes have no more CPUs, or memory. Make `resources.cpus`"),
    ],
)
def test_gpus_without_a_worker_are_named_with_the_reason(monkeypatch, node, maximum, said) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node}])
    found = ray_tune.WorkerCapacity(Resources(gpus=0.5), maximum).idle_gpus()
    assert (found is None) if said is None else (found is not None and said in found)


def test_cpus_that_are_idle_are_nobody_s_business_where_a_sweep_uses_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 3.0, "GPU": 2.0}}])
    assert ray_tune.WorkerCapacity(Resources(), 1).idle_gpus() is None


def test_a_sweep_that_needs_a_gpu_does_not_start_where_torch_finds_none(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpu.yaml").write_text(
        "name: gpu\ntask: {name: static, input_size: 10}\nmodel: nau\nseeds: 2\ntrain: {steps: 20}\nresources: {gpus: 1}\n"
    )
    answer = call("run", "gpu.yaml", "--no-mlflow", "--store", str(tmp_path / "results"))
    assert answer.status == 2
    assert (
        "torch" in answer.err
        and "finds none on this machine" in answer.err
        and "`resources.gpus=0` trains on CPUs" in answer.err
    )
    assert records_of(tmp_path / "results") == []
    assert call("run", "gpu.yaml", "resources.gpus=0", "--no-mlflow", "--store", str(tmp_path / "results")).status == 0


# ---- a real Ray with declared GPUs

MEETING = '''\
"""nau, in a worker that begins when as many others are there: no worker trains two packs because it is the first."""

import os
import time
from pathlib import Path

from arith_models.units.nau_nmu import NAU

if "MEETING" in os.environ and "CUDA_VISIBLE_DEVICES" in os.environ:
    folder, wanted = Path(os.environ["MEETING"]), int(os.environ["MEETING_SIZE"])
    (folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    deadline = time.monotonic() + 150
    while len(list(folder.iterdir())) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)


class Mine(NAU):
    """nau."""
'''

Trained = Callable[..., tuple[list[Any], list[str], str]]


@pytest.fixture
def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Trains a sweep on a Ray of this machine with declared GPUs; returns records, every worker's GPU, and what was printed."""
    monkeypatch.setenv("SWEEPS_COMPILE", "0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (folder / "mine.py").write_text(MEETING)

    def train(gpus: int, num_workers: int, limit: int | None = None, **changes: Any) -> tuple[list[Any], list[str], str]:
        meeting = folder / "meeting"
        meeting.mkdir()
        monkeypatch.setenv("MEETING", str(meeting))
        monkeypatch.setenv("MEETING_SIZE", str(num_workers))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        printed = StringIO()
        with started(folder / "results", model="./mine.py", **changes) as driver:
            run_module._train(driver, Console(file=printed, width=300), limit)
            assert driver.done and driver.common_error is None
        assert not ray.is_initialized()
        return records_of(folder / "results"), [path.read_text() for path in meeting.iterdir()], printed.getvalue()

    return train


@pytest.mark.cluster
def test_every_worker_has_its_own_gpu_though_the_machine_has_fewer_cpus(trained: Trained) -> None:
    """Two GPUs, and workers that want more CPUs than there are: the GPUs decide."""
    cpus = os.cpu_count() or 1
    records, seen, printed = trained(2, 2, resources={"gpus": 1, "cpus": cpus})
    assert sorted(seen) == ["0", "1"], "one process on each"
    assert "2 workers, packs of 8 slots" in printed and "note" not in printed
    assert Counter(record.provenance["gpu_of_node"] for record in records) == {"0": 8, "1": 8}
    assert {record.provenance["device"].split()[0] for record in records} == {"cpu"}, "what they were computed on"
    assert all(" cpu-" in record.provenance["numerics"] for record in records), "not passed off as a GPU's"


@pytest.mark.cluster
def test_four_workers_of_half_a_gpu_have_two_gpus_in_pairs_with_half_the_pack(trained: Trained) -> None:
    records, seen, printed = trained(2, 4, resources={"gpus": 0.5})
    assert sorted(seen) == ["0", "0", "1", "1"]
    assert "4 workers, packs of 4 slots" in printed and "note" not in printed
    assert Counter(record.provenance["gpu_of_node"] for record in records) == {"0": 8, "1": 8}


@pytest.mark.cluster
def test_three_workers_of_a_third_have_one_gpu(trained: Trained) -> None:
    records, seen, printed = trained(1, 3, resources={"gpus": 0.33}, seeds=12)
    assert seen == ["0", "0", "0"] and "3 workers, packs of 4 slots" in printed
    assert len(records) == 12


@pytest.mark.cluster
def test_a_limit_of_workers_below_the_gpus_is_kept_and_said(trained: Trained) -> None:
    records, seen, printed = trained(3, 2, limit=2, resources={"gpus": 1})
    assert len(set(seen)) == len(seen) == 2 and len(records) == 16
    assert "2 workers, packs of 8 slots" in printed
    assert "note: the GPUs are for 3 workers of 1, and there are 2, as `--workers` says" in printed


@pytest.mark.cluster
def test_a_worker_that_no_node_has_memory_for_is_refused_with_what_there_is(trained: Trained, monkeypatch) -> None:
    monkeypatch.setenv("SWEEPS_WAIT_S", "0")
    with pytest.raises(ClusterError, match=r"a worker needs 1 CPUs and 1 GPUs and 9e\+06 GB of one node.* 2 GPUs"):
        trained(2, 1, resources={"gpus": 1, "memory_gb": 9_000_000})
    assert not ray.is_initialized()
