"""One layer in SCALE-Sim, the package as it is or with its slowest loops shortened.

What is replaced changes nothing that is counted: an address is looked up in the union of the
resident sets, not in one set after the other; a row of writes that cannot fill the buffer is
stored at once; and the matrices that only bandwidth mode USER reads are not made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scalesim.layout_utils import layouts
from scalesim.memory import double_buffered_scratchpad_mem as memory
from scalesim.memory.read_buffer_estimate_bw import ReadBufferEstimateBw
from scalesim.memory.write_buffer import write_buffer
from scalesim.scale_config import scale_config
from scalesim.single_layer_sim import single_layer_sim
from scalesim.topology_utils import topologies


class ReadBuffer(ReadBufferEstimateBw):  # type: ignore[misc]  # SCALE-Sim has no stubs
    """Looks an address up once."""

    resident: set[int] = set()  # noqa: RUF012 -- replaced, never changed
    united: tuple[int | None, int] = (None, 0)

    def check_hit(self, addr: int) -> bool:
        """Whether a set that is resident and complete has the address."""
        start = self.read_buffer_set_start_id
        end = min(self.current_set_id, self.read_buffer_set_end_id + 1)
        if self.united[0] != start:
            self.united, self.resident = (start, start), set()
        for one in range(self.united[1], end):
            self.resident |= self.list_of_sets[one]
        self.united = start, max(self.united[1], end)
        return addr in self.resident

    def service_reads(self, incoming_requests_arr_np: Any, incoming_cycles_arr: Any) -> Any:
        """One row of requests; those that certainly hit change nothing."""
        if not self.first_request_seen:
            return super().service_reads(incoming_requests_arr_np, incoming_cycles_arr)
        for address in incoming_requests_arr_np[0].tolist():
            if not (address == -1 or address in self.resident or address in self.current_set):
                self.manage_prefetches(int(incoming_cycles_arr[0][0]), address)
        return incoming_cycles_arr + self.hit_latency


class WriteBuffer(write_buffer):  # type: ignore[misc]  # SCALE-Sim has no stubs
    """Stores the words of a row together where that cannot make the buffer drain."""

    def service_writes(self, incoming_requests_arr_np: Any, incoming_cycles_arr_np: Any) -> Any:
        """One row of requests."""
        row = incoming_requests_arr_np[0]
        row = row[row != -1]
        if self.free_space - len(row) <= self.total_size_elems - self.drain_buf_size:
            return super().service_writes(incoming_requests_arr_np, incoming_cycles_arr_np)
        while len(row):
            # The package itself begins a line with its first word, and ends it with its last.
            count = min(len(row), self.req_gen_bandwidth - self.line_idx - 1)
            if count == 0 or self.line_idx == 0:
                count = 1
                self.store_to_trace_mat_cache(row[0])
            else:
                self.current_line[0, self.line_idx : self.line_idx + count] = row[:count]
                self.line_idx += count
                self.free_space -= count
            row = row[count:]
        return incoming_cycles_arr_np.copy()


def simulate(
    shape: tuple[int, ...],
    array: tuple[int, int],
    sram_kib: int,
    dataflow: str,
    *,
    as_published: bool,
) -> dict[str, Any]:
    """Cycles, and words read from DRAM (input, weight) and written to it.

    `shape` is SCALE-Sim's: input height and width, filter height and width, channels, filters,
    strides. Its bandwidth mode is CALC: no stalls, traffic as it comes.
    """
    config = scale_config()
    config.array_rows, config.array_cols = array
    config.df = dataflow
    config.ifmap_sz_kb = config.filter_sz_kb = config.ofmap_sz_kb = sram_kib
    config.use_user_bandwidth, config.valid_conf_flag = False, True
    topology = topologies()
    topology.append_topo_arrays("layer", ["layer", *shape, 1, 1])
    topology.num_layers, topology.topo_load_flag = 1, True
    topology.topo_calc_hyperparams()
    memory.rdbuf_est = ReadBufferEstimateBw if as_published else ReadBuffer
    memory.wrbuf = write_buffer if as_published else WriteBuffer
    simulator = single_layer_sim()
    simulator.set_params(
        config_obj=config, topology_obj=topology, layout_obj=layouts(), verbose=False
    )
    if not as_published:
        simulator.compute_system.get_prefetch_matrices = lambda: (np.zeros((1, 1)),) * 2
    simulator.memory_system = memory.double_buffered_scratchpad()
    simulator.run()
    _, cycles, stalls, *_ = simulator.get_compute_report_items()
    if stalls:
        raise SystemExit(f"{shape}: SCALE-Sim stalled, which mode CALC does not")
    return {
        "cycles": int(cycles),
        "dram": [int(words) for words in simulator.get_detail_report_items()[11::3]],
    }
