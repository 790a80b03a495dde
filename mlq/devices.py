"""The devices of this machine: which targets can run here, why others cannot, how to open one."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np
from iree.runtime import _binding
from numpy.typing import NDArray

from mlq import targets
from mlq.errors import DataError, MlqError, TargetError
from mlq.targets.base import Target
from mlq.targets.device import Device
from mlq.targets.host import cpu_features, cpu_model
from mlq.targets.iree import CPU_FEATURES, TARGET_NAME

STATUS = re.compile(r"\.(?:c|cc|h):\d+: ([A-Z_]+); (.*?)(?:; while |\n|$)", re.DOTALL)
"""Code and message in the text of an IREE status."""
_PACKAGES = {
    "vulkan": "a Vulkan driver (on Debian mesa-vulkan-drivers is one in software)",
    "cuda": "NVIDIA's driver, which brings libcuda.so",
}
_HOST_MEMORY = int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE)
_ANY_USE = int(rt.BufferUsage.DEFAULT)
_ALIGNMENT = 64  # bytes; what compiled code may assume of the start of a buffer
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_...
_INSTANCES: list[Any] = []
_IDLE: dict[int, list[Any]] = {}  # devices with so many workers that nobody has


def instance() -> Any:
    """The process's one VM instance, made when first needed."""
    if not _INSTANCES:
        _INSTANCES.append(rt.VmInstance())
    return _INSTANCES[0]


def reason_of(error: Exception) -> str:
    """What an error of IREE says, on one line and without where in IREE."""
    match = STATUS.search(str(error))
    return match[2].replace("\n", " ") if match else str(error).splitlines()[0]


def why_not_here(target: Target) -> str:
    """Why nothing that was compiled for `target` can run on this machine; empty if it can.

    Emulators do not count: `mlq.emulation` is for those.
    """
    return _no_device(target) or _no_features(target.cpu_features)


def device_name(target: Target) -> str:
    """What runs a target's modules here, as reports call it."""
    if target.device.driver not in _PACKAGES:
        return cpu_model()
    return next(iter(gpus(target.device.driver)[0]), target.device.driver)


def open_device(target: Target, threads: int) -> Any:
    """A device that no one else has; one with workers is to be given back."""
    if target.device.driver in _PACKAGES:
        return _gpu_driver(target.device.driver).create_default_device()
    if threads < 1:
        raise TargetError(f"a module runs on at least one thread, not on {threads}")
    if threads == 1:
        return _on_cpu("local-sync")
    if _IDLE.get(threads):
        return _IDLE[threads].pop()
    # The worker count is a flag of the process that a driver reads when it is created.
    rt.flags.parse_flags(f"--task_topology_group_count={threads}")
    return _on_cpu("local-task")


def give_back(device: Any, threads: int) -> None:
    """Lend a device with workers to who asks next: who destroys one waits for its workers.

    One of these may wait for Python's lock, to drop what a call was given or the module itself.
    """
    device.allocator.trim()
    _IDLE.setdefault(threads, []).append(device)


@contextmanager
def behind_workers() -> Iterator[None]:
    """As long as this lasts, whoever wakes this thread goes on first, if both are on one CPU.

    A worker wakes who waits for a call before it is done with it, and IREE then spins until it is.
    """
    ordinary = getattr(os, "SCHED_OTHER", None)
    if ordinary is None or os.sched_getscheduler(0) != ordinary:
        yield
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, ordinary, os.sched_param(0))


def _on_cpu(name: str) -> Any:
    """A device that keeps the memory of one call for the next, which IREE would clear each time."""
    driver = _binding.create_hal_driver(name)
    return driver.create_device(driver.query_available_devices()[0], allocators=["caching"])


class Input:
    """An aligned host buffer that the device reads in place, and the view that describes it."""

    def __init__(self, device: Any, like: NDArray[Any]) -> None:
        self.array = _aligned(like.shape, like.dtype)
        element = _element_type(like.dtype)
        # The memory lives as long as the HalBuffer object does, not as the view: keep both.
        self._buffer = device.allocator.import_host_allocation(
            self.array.reshape(-1).view(np.uint8), _HOST_MEMORY, _ANY_USE
        )
        self.view = rt.HalBufferView(self._buffer, list(like.shape), element)

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether an array has this size and type."""
        return self.array.shape == array.shape and self.array.dtype == array.dtype

    def fill(self, array: NDArray[Any]) -> None:
        """Copy an array."""
        self.array[...] = array


class Upload:
    """An input in the memory of a GPU, copied there for each call."""

    def __init__(self, device: Any, like: NDArray[Any]) -> None:
        self._device, self._element = device, _element_type(like.dtype)
        self.view: Any = None

    def fits(self, array: NDArray[Any]) -> bool:
        """Whether an array has this type: any size will do."""
        return bool(self._element == _element_type(array.dtype))

    def fill(self, array: NDArray[Any]) -> None:
        """Copy an array to the device."""
        self.view = self._device.allocator.allocate_buffer_copy(
            int(rt.MemoryType.DEVICE_LOCAL),
            _ANY_USE,
            self._device,
            np.ascontiguousarray(array),
            self._element,
        )


def _element_type(dtype: np.dtype[Any]) -> Any:
    element = rt.dtypes.map_dtype_to_hal_element_type(dtype)
    if element is None:
        raise DataError(f"no device has elements of type {dtype}")
    return element


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(count + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + count].view(dtype).reshape(shape)


def mapped(_device: Any, view: Any) -> NDArray[Any]:
    """A copy of a result that lies in memory which the host shares with the device."""
    stored = np.dtype(rt.HalElementType.map_to_dtype(view.element_type))
    return np.array(view.map().asarray(view.shape, stored), copy=True)


def download(device: Any, view: Any) -> NDArray[Any]:
    """A copy of a result in a GPU's memory, by memory of its own: ours would be whole pages."""
    staged = device.allocator.allocate_buffer(
        int(rt.MemoryType.HOST_LOCAL | rt.MemoryType.DEVICE_VISIBLE),
        int(rt.BufferUsage.TRANSFER_TARGET | rt.BufferUsage.MAPPING_SCOPED),
        view.byte_length,
    )
    semaphore = device.create_semaphore(0)
    before, after = (rt.HalFence.create_at(semaphore, value) for value in (0, 1))
    device.queue_copy(view.get_buffer(), staged, before, after)
    after.wait()
    stored = np.dtype(rt.HalElementType.map_to_dtype(view.element_type))
    return np.array(staged.map().asarray(view.shape, stored), copy=True)


def target_of(reflection: Mapping[str, str], name: str) -> Target:
    """The target that a module was compiled for; TargetError if it cannot run here.

    `name` is what messages call the module. One of another mlq, that says nothing of its target,
    is taken for the host's. Nothing of IREE checks any of this: code for another CPU is killed by
    an illegal instruction, and that for another GPU computes something else.
    """
    called = reflection.get(TARGET_NAME)
    target = targets.host_target() if called is None else targets.by_name(called)
    if reason := _no_device(target):
        raise TargetError(f"{name} cannot run here: it was compiled for {target.name}; {reason}")
    if reason := _no_features(reflection.get(CPU_FEATURES, "").split()):
        raise TargetError(f"{name} cannot run here: {reason}; compile it on this machine")
    return target


def gpus(driver: str) -> tuple[list[str], str]:
    """The names of the devices that a driver finds, and why there are none."""
    try:
        found = _gpu_driver(driver).query_available_devices()
    except (RuntimeError, ValueError) as error:
        return [], reason_of(error)
    return [each["name"] for each in found], "" if found else "the driver finds no device"


@cache
def _gpu_driver(name: str) -> Any:
    return _binding.create_hal_driver(name)


def _no_device(target: Target) -> str:
    """Why this machine has no such device."""
    device = target.device
    if device.driver in _PACKAGES:
        return _no_gpu(device)
    machine = platform.machine().lower()
    if device.machines and machine not in device.machines:
        kind = device.machines[0]
        kind = "CPUs without an operating system" if kind == "none" else f"{kind} CPUs"
        return f"it is for {kind}, this machine is {machine}"
    return ""


def _no_gpu(device: Device) -> str:
    names, reason = gpus(device.driver)
    if not names:
        reason = reason.partition(";")[0]
        return f"there is no {device.driver} device ({reason}); install {_PACKAGES[device.driver]}"
    found = names[0].partition(" (")[0]
    if re.search(device.pattern, names[0]) is None:
        return f"its code is not made for {found}, the device here, and would be wrong on it"
    if device.capability and (present := _capability()) < device.capability:
        return f"its code is for sm_{device.capability} and newer, {found} here is sm_{present}"
    return ""


@cache
def _capability() -> int:
    """The compute capability of the first CUDA device, as 80, which IREE does not tell."""
    cuda, numbers = ctypes.CDLL("libcuda.so.1"), []
    cuda.cuInit(0)
    for attribute in _MAJOR, _MINOR:
        number = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
        numbers.append(number.value)
    return 10 * numbers[0] + numbers[1]


def _no_features(needed: Iterable[str]) -> str:
    """Why this CPU cannot execute such code; empty where its features cannot be known."""
    present = cpu_features()
    missing = sorted(set(needed) - present)
    if not missing or not present:
        return ""
    return f"it needs {', '.join(missing)}, which this CPU ({cpu_model()}) lacks"


def tool(name: str) -> Path:
    """A program of the runtime's wheel, such as iree-benchmark-module."""
    return Path(rt.__file__).parents[1] / "_runtime_libs" / name


def load_error(error: Exception) -> MlqError:
    """What is wrong with a module that cannot be loaded."""
    reason = reason_of(error)
    if "io_parameters" in reason:
        return DataError("the module keeps its weights outside; pass its parameters to load it")
    if "version mismatch" in reason:
        return TargetError(f"the module was compiled by another IREE, compile it again: {reason}")
    return DataError(f"the module cannot be loaded: {reason}")


def call_error(error: Exception, arrays: Sequence[NDArray[Any] | int]) -> MlqError:
    """What is wrong with a call of a module on these inputs."""
    match = STATUS.search(str(error))
    reason = reason_of(error)
    if match is None or match[1] != "INVALID_ARGUMENT":
        return TargetError(f"the module failed while running: {reason}")
    if "input list" in reason:
        return DataError(f"the module takes another number of inputs than {len(arrays)}: {reason}")
    actual = re.search(r"actual shape `([^`]*)`", reason)
    shapes = ["x".join(map(str, np.shape(array))) for array in arrays]
    if actual is not None and shapes.count(actual[1]) == 1:
        return DataError(f"input {shapes.index(actual[1])} does not fit the module: {reason}")
    return DataError(f"an input does not fit the module: {reason}")
