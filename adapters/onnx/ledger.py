"""What a rewritten graph owes to whom: each new node and initializer to a layer, or to all that share it."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

import onnx_ir as ir


@dataclass(slots=True, kw_only=True, eq=False)
class Account:
    """What was made for one owner.

    Attributes:
        nodes: Nodes, some of which may have been removed again.
        initializers: Initializers, likewise.
        shared: Keys of what it uses together with others.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    initializers: list[ir.Value] = field(default_factory=list)
    shared: set[Hashable] = field(default_factory=set)


class Ledger:
    """Accounts by owner: a layer by its name, what several share by its key.

    Attributes:
        accounts: What was made for whom, in the order in which they came.
    """

    def __init__(self) -> None:
        self.accounts: dict[Hashable, Account] = {}
        self._owners: list[Hashable] = [None]

    @contextlib.contextmanager
    def owned_by(self, owner: Hashable) -> Iterator[None]:
        """All that is made in the block is made for this owner."""
        self._owners.append(owner)
        try:
            yield
        finally:
            self._owners.pop()

    @property
    def current(self) -> Account:
        """The account of the owner at hand."""
        return self.accounts.setdefault(self._owners[-1], Account())

    def needs(self, owner: Hashable) -> set[Hashable]:
        """Keys of all that an owner shares with others, and of what these need in turn."""
        needed: set[Hashable] = set()
        waiting = list(self.accounts[owner].shared)
        while waiting:
            key = waiting.pop()
            if key not in needed:
                needed.add(key)
                waiting += self.accounts[key].shared if key in self.accounts else ()
        return needed
