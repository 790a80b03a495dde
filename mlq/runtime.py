"""Modules on a device: load, run, swap parameters, time. Nothing else in mlq uses iree.runtime."""

from __future__ import annotations

import copy
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import iree.runtime as rt
import numpy as np
from iree.runtime import _binding
from numpy.typing import DTypeLike, NDArray

from mlq import devices
from mlq.devices import Input, Upload, call_error, instance, load_error, reason_of
from mlq.errors import DataError
from mlq.quicker import Quicker

Array = NDArray[Any]
Parameters = Mapping[str, Array] | Path
"""Arrays by name, or a .irpa file (mapped into memory, not read)."""

_SCOPE = "model"
# Modules from so many bytes on are mapped from a file: what is mapped need not stay in memory.
_LARGE = 1 << 26
_AT_ONCE = nullcontext()


class Executable:
    """A module on one device, with its parameters bound; not for use from two threads at once.

    Make one with `load`. Inputs are copied into buffers that are kept from call to call, so that
    an array passed in may be changed or dropped as soon as `run` returns. Where the device has
    workers, the first calls find out whether inputs of such shapes are computed sooner without:
    by what `alone` makes. To wake workers takes as long as a small network does.
    """

    def __init__(
        self,
        module: Any,
        *,
        entry: str,
        device: Any,
        parameters: Parameters | None,
        dtypes: Sequence[DTypeLike] | None,
        shares_memory: bool = True,
        alone: Callable[..., Executable] | None = None,
    ) -> None:
        # Attributes go in this order: what lies in a GPU's memory must be gone before the device.
        self._inputs: list[Input | Upload] = []
        self._kept: list[tuple[Array, Input | Upload]] = []
        self._context: Any = None
        self._module = module
        self._function = module.lookup_function(entry)
        self._parameters = parameters
        self._dtypes = None if dtypes is None else [np.dtype(dtype) for dtype in dtypes]
        self._input = Input if shares_memory else Upload
        self._read = devices.mapped if shares_memory else devices.download
        self._device, self._has_workers = device, alone is not None
        self._is_inline = shares_memory and not self._has_workers
        self._make_alone = alone
        self._alone: Executable | None = None
        self._quicker: dict[tuple[Any, ...], Quicker] = {}
        self._context = self._bind()

    def run(self, *arrays: Array | int) -> list[Array]:
        """Results of one call, each an array of its own; DataError where inputs do not fit.

        Without `dtypes` at `load`, u8 comes back as int8. An int is an argument that is no tensor.
        """
        if self._make_alone is None:
            return self._run(*arrays)
        choice = self._quicker.setdefault(tuple(np.shape(each) for each in arrays), Quicker())
        return choice.call(self._run, lambda *given: self._without_workers().run(*given), *arrays)

    def prepare(self, *arrays: Array | int) -> Callable[[], None]:
        """A call with inputs already on the device, its results left there: for timing.

        It reads the inputs of this executable: the next `run` or `prepare` replaces them.
        """
        arguments = self._fill(arrays)

        def call() -> None:
            self._invoke(arguments, arrays)

        if self._make_alone is None:
            return call
        choice, made = Quicker(), list[tuple[Executable, Callable[[], None]]]()

        def alone() -> None:
            executable = self._without_workers()
            if not made or made[0][0] is not executable:
                made[:] = [(executable, executable.prepare(*arrays))]
            made[0][1]()

        return lambda: choice.call(call, alone)

    def swap_parameters(self, parameters: Parameters) -> None:
        """Run the same code with other parameters: no compilation, only a new context.

        A mapping may hold only what changes; a name the module was not loaded with is DataError.
        """
        if isinstance(parameters, Mapping) and isinstance(self._parameters, Mapping):
            unknown = sorted(parameters.keys() - self._parameters.keys())
            if unknown:
                raise DataError(f"parameter '{unknown[0]}' is not among those the module has")
            parameters = {**self._parameters, **parameters}
        # First, so that two sets of parameters are never alive together.
        self._alone = self._context = None
        self._parameters = parameters
        self._context = self._bind()

    def keep(self, arrays: Sequence[Array]) -> None:
        """Pass these as the last arguments of every call from now on; each is copied once."""
        before = {id(array): (array, slot) for array, slot in self._kept}
        self._kept = [before.get(id(array)) or (array, self._filled(array)) for array in arrays]
        self._alone = None

    def twins(self, count: int) -> list[Executable]:
        """So many for as many threads, this one first; it alone where the device has workers.

        Each has inputs of its own; parameters and kept arguments are shared.
        """
        twins = [copy.copy(self) for _ in range(1, count if self._is_inline else 1)]
        for each in twins:
            vars(each).update(_inputs=[], _context=self._bind())
        return [self, *twins]

    def _run(self, *arrays: Array | int) -> list[Array]:
        return self._collect(self._invoke(self._fill(arrays), arrays))

    def _without_workers(self) -> Executable:
        """The same on the calling thread."""
        assert self._make_alone is not None
        if self._alone is None:
            self._alone = self._make_alone(parameters=self._parameters)
            self._alone.keep([array for array, _ in self._kept])
        return self._alone

    def _filled(self, array: Array) -> Input | Upload:
        slot = self._input(self._device, array)
        slot.fill(array)
        return slot

    def _bind(self) -> Any:
        modules = [rt.create_hal_module(instance(), self._device)]
        if self._parameters is not None:
            provider = _index(self._parameters).create_provider(scope=_SCOPE)
            modules.append(_binding.create_io_parameters_module(instance(), provider))
        try:
            return rt.VmContext(instance(), modules=[*modules, self._module])
        except (RuntimeError, ValueError) as error:
            raise load_error(error) from None

    def _fill(self, given: Sequence[Array | int]) -> Any:
        """Copy inputs into the kept buffers, and list these as the arguments of a call."""
        arrays = [each for each in given if not isinstance(each, int)]
        del self._inputs[len(arrays) :]
        for index, array in enumerate(arrays):
            if index == len(self._inputs):
                self._inputs.append(self._input(self._device, array))
            elif not self._inputs[index].fits(array):
                self._inputs[index] = self._input(self._device, array)
            self._inputs[index].fill(array)
        arguments, slots = rt.VmVariantList(len(given) + len(self._kept)), iter(self._inputs)
        for each in given:
            if isinstance(each, int):
                arguments.push_int(each)
            else:
                arguments.push_ref(next(slots).view)
        for _, slot in self._kept:
            arguments.push_ref(slot.view)
        return arguments

    def _invoke(self, arguments: Any, arrays: Sequence[Array | int]) -> Any:
        results = rt.VmVariantList(1)
        try:
            with devices.behind_workers() if self._has_workers else _AT_ONCE:
                self._context.invoke(self._function, arguments, results)
        except (RuntimeError, ValueError, IndexError) as error:  # IREE's OUT_OF_RANGE is the last
            raise call_error(error, arrays) from None
        return results

    def _collect(self, results: Any) -> list[Array]:
        """Copies of all results, which are dropped here: before the device may be."""
        views = [results.get_as_object(i, rt.HalBufferView) for i in range(results.size)]
        return [self._to_host(index, view) for index, view in enumerate(views)]

    def _to_host(self, index: int, view: Any) -> Array:
        array = self._read(self._device, view)
        stored = array.dtype
        if self._dtypes is None:
            return array
        declared = self._dtypes[index]
        if declared.itemsize != stored.itemsize or (declared.kind == "f") != (stored.kind == "f"):
            raise DataError(f"result {index} is {stored}, it was declared {declared}")
        return array.view(declared)


def load(
    vmfb: bytes | Path,
    *,
    parameters: Parameters | None = None,
    threads: int = 1,
    dtypes: Sequence[DTypeLike] | None = None,
    entry: str = "main",
) -> Executable:
    """Load a module: its bytes, or a file, which is mapped and must not be overwritten in place.

    One thread runs in the caller; more make as many workers, where these are of use. `dtypes` are
    those of the results. Parameters that are aligned to 64 bytes, as those of a file, are used
    where they lie: leave their arrays as they are.
    Raises DataError for what is no module or lacks parameters, TargetError for another CPU's.
    """
    name = str(vmfb) if isinstance(vmfb, Path) else "the module"
    if isinstance(vmfb, Path) and not vmfb.is_file():
        raise DataError(f"{vmfb}: there is no such file; give the module.vmfb of a finished run")
    try:
        module = _module(vmfb)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{name} is no module that this IREE can load: {reason_of(error)}"
        ) from None
    if entry not in module.function_names:
        raise DataError(f"{name} has no function '{entry}'")
    target = devices.target_of(module.lookup_function(entry).reflection, name)
    is_local = target.device.driver == "local"
    make = partial(Executable, module, entry=entry, dtypes=dtypes, shares_memory=is_local)
    device = devices.open_device(target, threads)
    if not is_local or threads == 1:
        return make(device=device, parameters=parameters)
    alone = partial(make, device=devices.open_device(target, 1))
    executable = make(device=device, parameters=parameters, alone=alone)
    weakref.finalize(executable, devices.give_back, device, threads)
    return executable


def _module(vmfb: bytes | Path) -> Any:
    if isinstance(vmfb, Path):
        return rt.VmModule.mmap(instance(), str(vmfb))
    if len(vmfb) < _LARGE:
        return rt.VmModule.copy_buffer(instance(), vmfb)
    with tempfile.NamedTemporaryFile(prefix="mlq-") as file:
        file.write(vmfb)
        file.flush()
        return rt.VmModule.mmap(instance(), file.name)


def save_parameters(path: Path, parameters: Mapping[str, Array]) -> None:
    """Write a .irpa file that `load` maps; memory-mapped arrays are copied page by page."""
    part = path.with_name(path.name + ".part")
    _index(parameters).create_archive_file(str(part))
    part.replace(path)


def _index(parameters: Parameters) -> Any:
    index = rt.ParameterIndex()
    if isinstance(parameters, Path):
        if not parameters.is_file():
            raise DataError(f"{parameters}: there is no such file of parameters")
        try:
            index.load(str(parameters))
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{parameters} is no .irpa file: {reason_of(error)}") from None
        return index
    for key, array in parameters.items():
        index.add_buffer(key, np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return index
