"""How the processes that torchrun started find each other, again after every restart."""

import time
from datetime import timedelta
from uuid import uuid4

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

LONG = timedelta(days=2)  # for work before the first step, which takes as long as it takes


def begin() -> tuple[Store, int, int]:
    """Return a store of this start alone, the number of this process, and how many there are."""
    store, rank, size = next(rendezvous("env://", timeout=LONG))
    return PrefixStore(_name(store, rank, size), store), rank, size


def _name(store: Store, rank: int, size: int) -> str:
    """Agree on a name for this start: the store still holds what dead processes wrote before it.

    Process 0 calls, all answer with a name of their own, and only a call that heard it counts.
    """
    own = uuid4().hex
    if rank == 0:
        store.set("call", own)
        store.wait([f"{own}/{i}" for i in range(1, size)], LONG)
        store.set(
            f"{own}/heard", " ".join(store.get(f"{own}/{i}").decode() for i in range(1, size))
        )
        return own
    while True:
        call = store.get("call").decode()
        store.set(f"{call}/{rank}", own)
        if store.check([f"{call}/heard"]) and own in store.get(f"{call}/heard").decode():
            return call
        time.sleep(0.02)
