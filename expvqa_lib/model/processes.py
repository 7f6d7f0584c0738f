"""Work shared by the processes of `accelerate launch` or `torchrun`; each of them ends with the whole
result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object


def state() -> PartialState:
    """The processes that were started together; on the CPU where there is no accelerator."""
    return PartialState(cpu=not torch.accelerator.is_available())


def by_share(items: Sequence, work: Callable[[list], Sequence]) -> list:
    """Call `work` with this process's share of the items; return the results of all processes in the items'
    order.

    All processes must call it, with the same items. A share may be empty.
    """
    with state().split_between_processes(list(items)) as share:
        return gather_object(list(work(share)))


def from_main(value: object) -> object:
    """The main process's value, on which all must agree though each reads the disk at another time."""
    return broadcast_object_list([value])[0]
