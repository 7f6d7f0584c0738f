"""Work shared by the processes of `accelerate launch` or `torchrun`, so that each ends up with what one process alone would have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


def state() -> PartialState:
    """The processes that were started together; on the CPU where there is no accelerator."""
    return PartialState(cpu=not torch.accelerator.is_available())


def by_share(n: int, work: Callable[[slice], Sequence]) -> list:
    """Call `work` with this process's share of `n` items, and return what all of them made, in the items' order.

    All processes must call it, with the same `n`. A share is empty where there are fewer items than processes.
    """
    here = state()
    bounds = [n * k // here.num_processes for k in range(here.num_processes + 1)]
    mine = list(work(slice(bounds[here.process_index], bounds[here.process_index + 1])))
    return gather_object(mine) if here.num_processes > 1 else mine


def from_main(value: object) -> object:
    """What the main process calls `value`: that which all must agree on, though they look at a disk at different times."""
    return broadcast_object_list([value])[0] if state().num_processes > 1 else value
