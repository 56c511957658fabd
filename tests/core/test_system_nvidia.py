"""NVIDIA GPUs through a real shared library that plays them (tests/nvml/fake_nvml.c), found by the loader."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightlog.system.nvml import Gpu, Mig, visible

from .conftest import environment

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is needed to build the library that plays NVIDIA's"),
    pytest.mark.skipif(sys.platform != "linux", reason="the library is found as Linux's loader finds it"),
]

GPU = """
gpu {0} uuid GPU-{0}0000000-aaaa
gpu {0} utilization 35
gpu {0} memory_utilization 12
gpu {0} memory_total 1000
gpu {0} memory_used 200
gpu {0} memory_reserved 50
gpu {0} temperature 61
gpu {0} memory_temperature 71
gpu {0} power 250000
gpu {0} power_limit 400000
gpu {0} clock_sm 1500
gpu {0} clock_memory 2000
gpu {0} clock_graphics 1400
gpu {0} throttle 37
gpu {0} ecc_corrected 2
gpu {0} ecc_uncorrected 1
gpu {0} nvlink_tx_rate 1000
gpu {0} nvlink_rx_rate 2000
gpu {0} pcie_tx_rate 3000000
gpu {0} pcie_rx_rate 4000000
"""
TWO = GPU.format(0) + GPU.format(1)
MIG = """
gpu 0 uuid GPU-00000000-aaaa
gpu 0 mig 1
gpu 0 temperature 50
mig 0 1 uuid MIG-11111111-bbbb
mig 0 1 gi 3
mig 0 1 ci 0
mig 0 1 memory_total 100
mig 0 1 memory_used 25
mig 0 4 uuid MIG-44444444-bbbb
mig 0 4 gi 5
mig 0 4 ci 0
mig 0 4 memory_total 100
mig 0 4 memory_used 75
"""
# Runs a sampler whose every word is a line of JSON, until there is a line on its standard input.
WATCHER = """
import json, os, sys, time
from flightlog.system import Sampler

def say(**words):
    print(json.dumps(words), flush=True)

sampler = Sampler(lambda values: say(values=values), lambda line: say(note=line), 0.1)
say(pid=os.getpid())
sampler.start()
sys.stdin.readline()
began = time.perf_counter()
sampler.stop()
say(stopped=time.perf_counter() - began)
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build the library, once for each set of options, and return the folder it is in."""
    built: dict[tuple[str, ...], Path] = {}

    def make(*options: str) -> Path:
        if options not in built:
            folder = tmp_path_factory.mktemp("nvml")
            source = ROOT / "tests" / "nvml" / "fake_nvml.c"
            command = ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", *options, "-shared", "-fPIC"]
            subprocess.run([*command, "-o", folder / "libnvidia-ml.so.1", source], check=True)
            built[options] = folder
        return built[options]

    return make


class Watched:
    """A process that samples the GPUs of a file, which may change meanwhile."""

    def __init__(self, library: Path, file: Path, script: str, **variables: str) -> None:
        self._file = file
        surroundings = environment(LD_LIBRARY_PATH=str(library), FAKE_NVML=str(file), **variables)
        if "CUDA_VISIBLE_DEVICES" not in variables:
            surroundings.pop("CUDA_VISIBLE_DEVICES", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", script], env=surroundings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.words: list[dict[str, Any]] = []
        self.pid: int = self._next()["pid"]

    def describe(self, content: str) -> None:
        """Replace what the library plays."""
        new = self._file.with_suffix(".new")
        new.write_text(content)
        os.replace(new, self._file)

    def until(self, condition: Callable[[dict[str, float]], object]) -> dict[str, float]:
        """Return the GPUs' values of the first of the next 200 samples for which a condition holds."""
        for _ in range(200):
            word = self._next()
            values = {name: value for name, value in word.get("values", {}).items() if name.startswith("gpu.")}
            if "values" in word and condition(values):
                return values
        raise AssertionError(self.words[-5:])

    def samples(self, count: int) -> list[dict[str, float]]:
        """Return the GPUs' values of the next samples."""
        return [self.until(lambda values: True) for _ in range(count)]

    @property
    def notes(self) -> list[str]:
        return [word["note"] for word in self.words if "note" in word]

    def end(self) -> float:
        """Stop the sampler and the process; return how long the first took, in seconds."""
        assert self.process.stdin
        if self.process.poll() is None:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        while not self.words or "stopped" not in self.words[-1]:
            self._next()
        assert self.process.wait(timeout=30) == 0
        return float(self.words[-1]["stopped"])

    def _next(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait()}: {self.words[-3:]}"
        self.words.append(json.loads(line))
        return self.words[-1]


@pytest.fixture
def watch(build: Callable[..., Path], tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Sample the GPUs that a text describes, in a process of its own."""
    made: list[Watched] = []

    def start(content: str, *options: str, script: str = WATCHER, **variables: str) -> Watched:
        file = tmp_path / "gpus"
        file.write_text(content)
        made.append(Watched(build(*options), file, script, **variables))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        with one.process:
            pass


def test_every_reading_of_a_gpu(watch: Callable[..., Watched]) -> None:
    """Load, memory, temperature, power, clocks, throttling, buses and errors come with their units as documented."""
    values = watch(GPU.format(0)).until(lambda values: "gpu.0.pcieTxBytes" in values)
    assert values.pop("gpu.0.nvlinkTxBytes") == pytest.approx(1000 * 1024, rel=0.2)
    assert values.pop("gpu.0.nvlinkRxBytes") == pytest.approx(2000 * 1024, rel=0.2)
    assert values.pop("gpu.0.pcieTxBytes") == pytest.approx(3e6, rel=0.2)
    assert values.pop("gpu.0.pcieRxBytes") == pytest.approx(4e6, rel=0.2)
    assert values == {
        "gpu.0.gpu": 35, "gpu.0.memory": 12,
        "gpu.0.memoryAllocated": 20, "gpu.0.memoryAllocatedBytes": 200,
        "gpu.0.temp": 61, "gpu.0.memoryTemp": 71,
        "gpu.0.powerWatts": 250, "gpu.0.enforcedPowerLimitWatts": 400, "gpu.0.powerPercent": 62.5,
        "gpu.0.smClock": 1500, "gpu.0.memoryClock": 2000, "gpu.0.graphicsClock": 1400,
        "gpu.0.throttle.swPowerCap": 1, "gpu.0.throttle.swThermal": 1, "gpu.0.throttle.hwThermal": 0,
        "gpu.0.throttle.hwSlowdown": 0, "gpu.0.throttle.hwPowerBrake": 0, "gpu.0.throttle.syncBoost": 0,
        "gpu.0.correctedMemoryErrors": 2, "gpu.0.uncorrectedMemoryErrors": 1, "gpu.0.xidErrors": 0,
    }  # fmt: skip


def test_the_page_lists_what_the_probes_give(watch: Callable[..., Watched], tmp_path: Path) -> None:
    """docs/system.md has a row for every name that a machine with everything gives, and for no other."""
    page = (ROOT / "docs" / "system.md").read_text()
    listed = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    group = tmp_path / "group"
    group.mkdir()
    for name, content in {"memory.max": "1000000", "memory.swap.max": "9", "memory.swap.current": "1"}.items():
        (group / name).write_text(content)
    (tmp_path / "membership").write_text("0::/\n")
    ours = f"import pathlib; from flightlog.system.cgroup import Cgroup; here = pathlib.Path({str(tmp_path)!r})\n"
    script = ours + WATCHER.replace(
        ", 0.1)", ", 0.1, per_core=True, cgroup=Cgroup(here / 'group', here / 'membership'))"
    )
    watched = watch(GPU.format(0) + "xid 0 43\n", script=script)
    watched.describe(GPU.format(0) + f"xid 0 43\nprocess 0 {watched.pid} 100 30\n")
    watched.until(lambda values: {"gpu.process.0.gpu", "gpu.0.pcieTxBytes", "gpu.0.xid"} <= set(values))
    watched.samples(2)
    given = {_general(name) for word in watched.words for name in word.get("values", {})}
    assert given == set(listed)
    assert len(listed) == len(set(listed))


def _general(name: str) -> str:
    """Return a name as the page writes it."""
    name = re.sub(r"^((?:gpu|cpu|gpu\.process)\.)\d+(?:\.mig\.\d+)?\.", r"\1<i>.", name)
    return re.sub(r"^disk\./.*\.(usage\w+)$", r"disk.<path>.\1", name)


def test_the_own_share_is_that_of_the_process_tree(watch: Callable[..., Watched]) -> None:
    """What the run's processes hold of a GPU is told apart from what others hold; without any it is missing."""
    watched = watch(TWO)
    watched.describe(TWO + f"process 0 {watched.pid} 100 30\nprocess 0 1 700 60\nprocess 1 1 700 60\n")
    values = watched.until(lambda values: "gpu.process.0.gpu" in values)
    assert values["gpu.process.0.memoryAllocatedBytes"] == 100
    assert values["gpu.process.0.memoryAllocated"] == 10
    assert values["gpu.process.0.gpu"] == 30
    assert not [name for name in values if name.startswith("gpu.process.1")]


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, {0, 1}), ("", set()), ("0", {0}), ("1,0", {0, 1}), ("1,7,0", {1}), ("-1", set()), ("NoDevFiles", set()),
        ("GPU-1", {1}), ("GPU-10000000-aaaa,GPU-0", {0, 1}), ("GPU-", set()), ("0,0", set()), (" 1 ", {1}),
    ],
)  # fmt: skip
def test_cuda_visible_devices_is_honoured(build: Callable[..., Path], wanted: str | None, seen: set[int]) -> None:
    """Numbers, UUIDs and their beginnings choose GPUs by CUDA's rules; empty and nonsense mean none."""
    gpus = [Gpu(None, i, f"GPU-{i}0000000-aaaa") for i in (0, 1)]
    assert {gpu.index for gpu in visible(gpus, wanted)} == seen


def test_only_visible_gpus_are_sampled(watch: Callable[..., Watched]) -> None:
    """A sampler under CUDA_VISIBLE_DEVICES=1 reports GPU 1, under the number that nvidia-smi gives it."""
    values = watch(TWO, CUDA_VISIBLE_DEVICES="1").until(lambda values: values)
    assert {name.split(".")[1] for name in values} == {"1"}


def test_a_script_may_set_the_variable_late(watch: Callable[..., Watched]) -> None:
    """CUDA_VISIBLE_DEVICES set after the sampler began counts from the next sample on."""
    late = "sys.stdin.readline()\nos.environ['CUDA_VISIBLE_DEVICES'] = '0'\nsys.stdin.readline()"
    watched = watch(TWO, script=WATCHER.replace("sys.stdin.readline()", late))
    watched.until(lambda values: "gpu.1.temp" in values)
    assert watched.process.stdin
    watched.process.stdin.write("\n")
    watched.process.stdin.flush()
    watched.until(lambda values: "gpu.0.temp" in values and "gpu.1.temp" not in values)


@given(
    st.none() | st.text(max_size=60) | st.lists(st.sampled_from(["0", "1", "GPU-0", "MIG-1", "-1", "x"])).map(",".join)
)
def test_any_value_of_the_variable_chooses_some_or_none(wanted: str | None) -> None:
    """Whatever the variable holds, what is seen is a part of what there is, in its order, each once."""
    gpus = [Gpu(None, i, f"GPU-{i}0", (Mig(None, 0, f"MIG-{i}1", 1, 0),)) for i in range(3)]
    seen = visible(gpus, wanted)
    assert [gpu.index for gpu in seen] == sorted({gpu.index for gpu in seen})
    assert all(set(gpu.migs) <= set(gpus[gpu.index].migs) for gpu in seen)


@pytest.mark.parametrize(
    ("wanted", "slices"),
    [
        (None, {1, 4}), ("0", {1, 4}), ("MIG-1", {1}), ("MIG-44444444-bbbb", {4}), ("MIG-GPU-00000000-aaaa/5/0", {4}),
        ("MIG-1,MIG-4", {1, 4}), ("MIG-9", set()), ("MIG-GPU-00000000-aaaa/5", set()),
    ],
)  # fmt: skip
def test_slices_are_chosen_by_name(wanted: str | None, slices: set[int]) -> None:
    """The slices of a divided GPU are seen: all, or those that are named in either of CUDA's spellings."""
    migs = (Mig(None, 1, "MIG-11111111-bbbb", 3, 0), Mig(None, 4, "MIG-44444444-bbbb", 5, 0))
    seen = visible([Gpu(None, 0, "GPU-00000000-aaaa", migs)], wanted)
    assert {mig.index for gpu in seen for mig in gpu.migs} == slices


@pytest.mark.parametrize("wanted", [None, "MIG-4"])
def test_slices_are_reported(watch: Callable[..., Watched], wanted: str | None) -> None:
    """Each slice that is seen has its memory under its own number, beside what the whole GPU tells."""
    values = watch(MIG, **({} if wanted is None else {"CUDA_VISIBLE_DEVICES": wanted})).until(lambda values: values)
    assert values["gpu.0.temp"] == 50
    assert values["gpu.0.mig.4.memoryAllocated"] == 75
    assert values.get("gpu.0.mig.1.memoryAllocated") == (25 if wanted is None else None)


def test_a_lost_gpu_costs_a_line_and_the_others_go_on(watch: Callable[..., Watched]) -> None:
    """A GPU that falls off the bus in the midst of a run is told once; the other one is sampled on."""
    watched = watch(TWO)
    watched.until(lambda values: {"gpu.0.temp", "gpu.1.temp"} <= set(values))
    watched.describe(TWO + "".join(f"return {f} 15 0\n" for f in ("nvmlDeviceGetUtilizationRates",)))
    values = watched.until(lambda values: "gpu.0.temp" not in values and "gpu.1.temp" in values)
    assert values["gpu.1.gpu"] == 35
    watched.samples(3)
    assert watched.notes == ["system metrics: GPU 0 is lost (GPU is lost); its metrics end here"]


def test_a_gpu_that_is_lost_from_the_start(watch: Callable[..., Watched]) -> None:
    """A GPU whose handle is not given costs a line, and the others are sampled."""
    watched = watch(TWO + "return nvmlDeviceGetHandleByIndex_v2 15 0\n")
    values = watched.until(lambda values: values)
    assert {name.split(".")[1] for name in values} == {"1"}
    assert len(watched.notes) == 1


@pytest.mark.parametrize(
    ("function", "code", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", 3, {"gpu", "memory"}),
        ("nvmlDeviceGetPowerUsage", 999, {"powerWatts", "powerPercent"}),
        ("nvmlDeviceGetClockInfo", 4, {"smClock", "memoryClock", "graphicsClock"}),
    ],
)
def test_a_call_that_fails_costs_its_own_values(
    watch: Callable[..., Watched], function: str, code: int, missing: set[str]
) -> None:
    """Not supported, not permitted, or failing again and again: the other values are there, and no line is spent."""
    watched = watch(GPU.format(0) + f"return {function} {code}\n")
    values = watched.until(lambda values: "gpu.0.pcieTxBytes" in values)
    assert not {f"gpu.0.{name}" for name in missing} & set(values)
    assert len(values) == 25 - len(missing)
    watched.samples(2)
    assert watched.notes == []


def test_an_old_driver_gives_what_it_has(watch: Callable[..., Watched]) -> None:
    """Where symbols are missing the older calls serve, and what they do not know is missing."""
    old = GPU.format(0) + "gpu 0 pcie_tx 10\ngpu 0 pcie_rx 20\n"
    watched = watch(old, "-DOLD_DRIVER")
    watched.describe(old + f"process 0 {watched.pid} 100 30\n")
    values = watched.until(lambda values: "gpu.process.0.memoryAllocated" in values)
    assert values["gpu.0.throttle.swPowerCap"] == 1
    assert values["gpu.0.memoryAllocatedBytes"] == 250
    assert values["gpu.0.pcieTxBytes"] == 10_000
    assert "gpu.0.correctedMemoryErrors" not in values
    assert "gpu.process.0.gpu" not in values
    assert watched.notes == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("return nvmlInitWithFlags 9\n", "nvidia: the NVIDIA driver does not answer: Driver Not Loaded"),
        ("return nvmlInitWithFlags 18\n", "nvidia: the NVIDIA driver does not answer: "),
        ("return nvmlDeviceGetCount_v2 999\n", "nvidia: NVMLError_Unknown: "),
    ],
)
def test_a_broken_driver_costs_one_line(watch: Callable[..., Watched], content: str, line: str) -> None:
    """A driver that cannot be initialized or asked is told once; the machine's own sources go on."""
    watched = watch(GPU.format(0) + content)
    watched.samples(3)
    assert len(watched.notes) == 1
    assert watched.notes[0].startswith(f"system metrics: {line}")


def test_without_a_driver_there_is_one_line(tmp_path: Path) -> None:
    """Where the loader finds no library, or one that is none, the run says so and the binding is not even imported."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library")
    file = tmp_path / "none"
    script = WATCHER.replace("say(stopped", "assert 'pynvml' not in sys.modules\nsay(stopped")
    watched = Watched(tmp_path, file, script)
    with watched.process:
        watched.samples(3)
        watched.end()
    assert len(watched.notes) == 1
    assert watched.notes[0].startswith("system metrics: nvidia: no NVIDIA driver (")


def test_without_the_binding_the_line_has_the_pip_command(watch: Callable[..., Watched]) -> None:
    """A driver without nvidia-ml-py: the line says what to install."""
    watched = watch(GPU.format(0), script="import sys; sys.modules['pynvml'] = None\n" + WATCHER)
    watched.samples(3)
    assert len(watched.notes) == 1
    assert "pip install nvidia-ml-py" in watched.notes[0]


@pytest.mark.parametrize("function", ["nvmlInitWithFlags", "nvmlDeviceGetPowerUsage"])
def test_a_hanging_driver_does_not_stop_the_others(watch: Callable[..., Watched], function: str) -> None:
    """While a call never returns the machine is sampled on, stop() is quick, the process ends, and the line is told."""
    watched = watch(GPU.format(0) + f"delay {function} -1\n")
    assert not any(watched.samples(4))
    assert watched.end() < 1.5
    assert watched.notes == ["system metrics: nvidia: no answer before the run ended"]


def test_a_hang_in_the_midst_of_a_run_is_told(watch: Callable[..., Watched]) -> None:
    """A driver that stops answering later costs a line after a while, and the values until then are there."""
    patient = "import flightlog.system.feed; flightlog.system.feed.HANGING_SECONDS = 0.6\n" + WATCHER
    watched = watch(GPU.format(0), script=patient)
    watched.until(lambda values: "gpu.0.temp" in values)
    watched.describe(GPU.format(0) + "delay nvmlDeviceGetTemperature -1\n")
    while not watched.notes:
        watched.samples(1)
    assert re.fullmatch(r"system metrics: nvidia: no answer for \d+ s; the others go on without it", watched.notes[0])
    watched.samples(3)
    watched.end()
    assert len(watched.notes) == 1


def test_a_slow_driver_is_sampled_when_it_answers(watch: Callable[..., Watched]) -> None:
    """A driver that takes longer than a sample waits for: its values come in a later one, the machine's in each."""
    watched = watch(GPU.format(0) + "delay nvmlDeviceGetPowerUsage 700\n")
    watched.until(lambda values: not values)
    watched.until(lambda values: "gpu.0.temp" in values)
    assert watched.notes == []


def test_errors_that_the_driver_reports_are_counted(watch: Callable[..., Watched]) -> None:
    """Xid errors are counted per GPU as they come, with the last one's number, and each is told once."""
    watched = watch(TWO + "xid 1 79\nxid 1 79\n")
    values = watched.until(lambda values: values.get("gpu.1.xidErrors") == 2)
    assert values["gpu.1.xid"] == 79
    assert values["gpu.0.xidErrors"] == 0
    assert "gpu.0.xid" not in values
    watched.describe(TWO + "xid 1 79\nxid 1 79\nxid 0 43\n")
    assert watched.until(lambda values: values.get("gpu.0.xidErrors") == 1)["gpu.0.xid"] == 43
    link = "(https://docs.nvidia.com/deploy/xid-errors/)"
    assert watched.notes == [f"system metrics: GPU {i} reports error Xid {xid} {link}" for i, xid in ((1, 79), (0, 43))]


def test_a_library_that_the_training_shuts_down_is_begun_again(watch: Callable[..., Watched]) -> None:
    """When somebody else's nvmlShutdown ends the library under us, sampling goes on."""
    rude = "sys.stdin.readline()\nimport pynvml; pynvml.nvmlShutdown(); say(done=1)\nsys.stdin.readline()"
    watched = watch(GPU.format(0), script=WATCHER.replace("sys.stdin.readline()", rude))
    watched.until(lambda values: "gpu.0.temp" in values)
    assert watched.process.stdin
    watched.process.stdin.write("\n")
    watched.process.stdin.flush()
    while "done" not in watched.words[-1]:
        watched._next()
    watched.samples(2)
    watched.until(lambda values: "gpu.0.temp" in values)
    assert watched.notes == []


def test_no_more_than_64_gpus(watch: Callable[..., Watched]) -> None:
    """However many GPUs a driver claims, the first 64 are sampled."""
    values = watch("".join(f"gpu {i} temperature {i}\n" for i in range(100))).until(lambda values: values)
    assert {name for name in values if name.endswith("temp")} == {f"gpu.{i}.temp" for i in range(64)}


HARDWARE = """
import json, sys, time
from flightlog.system import hardware
print(json.dumps({"pid": 0}), flush=True)
print(json.dumps({"facts": hardware(timeout=float(sys.argv[1] if sys.argv[1:] else 20))}), flush=True)
"""


def test_the_gpus_are_described(watch: Callable[..., Watched]) -> None:
    """hardware() names each GPU that the run sees, with its memory, the driver and the CUDA it supports."""
    watched = watch(TWO, script=HARDWARE, CUDA_VISIBLE_DEVICES="1")
    facts = watched._next()["facts"]
    versions = {"driver": "999.12.34", "cuda": "12.8"}
    assert facts["gpus"] == [
        {"index": 1, "uuid": "GPU-10000000-aaaa", "name": "NVIDIA Fake", "memory": 1000, **versions}
    ]
    assert "gpus_missing" not in facts


def test_a_hanging_driver_does_not_hold_the_description_up(watch: Callable[..., Watched]) -> None:
    """hardware() gives the driver its time and then returns what else it knows."""
    script = HARDWARE.replace("sys.argv[1] if sys.argv[1:] else 20", "0.3")
    watched = watch(TWO + "delay nvmlInitWithFlags -1\n", script=script)
    began = time.monotonic()
    facts = watched._next()["facts"]
    assert time.monotonic() - began < 20
    assert facts["gpus"] == []
    assert facts["gpus_missing"] == "the NVIDIA driver gave no answer within 0.3 s"
    assert facts["memory_total"] > 0
    assert watched.process.wait(timeout=20) == 0
