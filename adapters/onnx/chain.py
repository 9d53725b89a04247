"""Run a graph segment by segment, with any weights replaced, reusing what comes before the first change."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from lampq.adapters.onnx import parts
from lampq.adapters.onnx.cuts import Segment
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site
from lampq.adapters.onnx.weights import TAPPED

State = dict[str, ort.OrtValue]
"""The computed values that later segments still need, by name."""

Feeds = dict[int, dict[str, ort.OrtValue]]
"""Weights for the segments that take them as inputs, by index of the segment and name of the input."""


class Chain:
    """The segments of a graph and their sessions.

    A segment has up to two sessions, opened when first needed: one with its weights as constants, which the
    runtime packs and fuses once, and one that takes them as inputs.

    Args:
        flow: The graph.
        segments: Its segments, in order.
        runtime: How sessions are opened.
        stored: Gives the stored array of a layer, float32.
        pool: Threads that the chunks of a batch are divided among.

    Attributes:
        places: Indices of the segments that use a layer, in order, by its name.
    """

    def __init__(
        self,
        flow: Flow,
        segments: Sequence[Segment],
        runtime: Runtime,
        stored: Callable[[str], np.ndarray],
        pool: ThreadPoolExecutor,
    ) -> None:
        self._flow = flow
        self._segments = tuple(segments)
        self._runtime = runtime
        self._stored = stored
        self._sessions: dict[tuple[int, bool], ort.InferenceSession] = {}
        self._opening = threading.Lock()
        self._pool = pool
        # Stored weights of the open segment in use; a sweep stays in one segment for many candidates.
        self._kept: tuple[int, dict[str, ort.OrtValue]] = (-1, {})
        # Sessions that tell what a site reads, by segment and site; weights are inputs, so they are small.
        self._looking: dict[tuple[int, str], ort.InferenceSession] = {}
        self.places: dict[str, tuple[int, ...]] = {}
        for index, part in enumerate(self._segments):
            for site in part.sites:
                self.places[site.name] = (*self.places.get(site.name, ()), index)

    def __len__(self) -> int:
        return len(self._segments)

    def start(self, feeds: Iterable[Mapping[str, np.ndarray]]) -> list[State]:
        """States in front of the first segment, one for the inputs of each chunk."""
        return [{name: to_value(array) for name, array in inputs.items()} for inputs in feeds]

    def feeds(self, weights: Mapping[str, np.ndarray], *, of: Iterable[str] | None = None) -> Feeds:
        """What to feed so that some layers have other weights than the stored.

        Args:
            weights: Those weights by layer name, float32.
            of: Only what segments with these layers need; None asks for all.
        """
        indices = {index for name in (weights if of is None else of) for index in self.places[name]}
        return {index: self._weights(index, weights) for index in sorted(indices)}

    def advance(self, states: list[State], index: int, feeds: Feeds) -> None:
        """Bring states from the front of a segment to behind it, in place.

        Raises:
            AdapterError: The runtime fails.
        """
        for chunk, state in enumerate(self._pool.map(lambda state: self._step(state, index, feeds), states)):
            states[chunk] = state

    def finish(self, states: Iterable[State], index: int, feeds: Feeds) -> list[dict[str, np.ndarray]]:
        """The outputs of the flow by name for each chunk, given the states in front of a segment.

        Raises:
            AdapterError: The runtime fails.
        """
        names = [value.name or "" for value in self._flow.outputs]

        def run(state: State) -> dict[str, np.ndarray]:
            for step in range(index, len(self._segments)):
                state = self._step(state, step, feeds)
            return {name: state[name].numpy() for name in names}

        return list(self._pool.map(run, states))

    def taps(self, states: list[State], feeds: Feeds) -> Iterator[tuple[Site, int, int, np.ndarray]]:
        """Inputs of all sites, segment by segment.

        Args:
            states: States in front of the first segment; advanced in place.
            feeds: Weights that differ from the stored.

        Yields:
            Site, index of its use, index of a chunk, and the chunk's activation as the operator reads it.
        """
        for index, part in enumerate(self._segments):
            for chunk, known, taps in self._known(states, index, feeds, part.outputs):
                states[chunk] = _behind(part, known)
                for site, number, name in taps:
                    yield site, number, chunk, known[name].numpy()

    def look(
        self, states: list[State], index: int, feeds: Feeds, layer: str
    ) -> Iterator[tuple[Site, int, int, np.ndarray]]:
        """Inputs of a site of a segment, given the states in front of it, which stay there; see `taps`.

        Args:
            states: States in front of the segment.
            index: The segment.
            feeds: Its weights.
            layer: Name of the site.
        """
        for chunk, known, taps in self._known(states, index, feeds, (), layer):
            for site, number, name in taps:
                yield site, number, chunk, known[name].numpy()

    def _known(
        self,
        states: list[State],
        index: int,
        feeds: Feeds,
        wanted: Sequence[ir.Value],
        layer: str | None = None,
    ) -> Iterator[tuple[int, State, list[tuple[Site, int, str]]]]:
        """Chunks with the values that a segment adds to their state: those wanted, and what its sites, or one, read."""
        part = self._segments[index]
        inside = set(part.nodes)
        taps = [
            (site, number, use.activation.name or "")
            for site in part.sites
            if layer is None or site.name == layer
            for number, use in enumerate(site.uses)
            if use.node in inside and use.slot.form in TAPPED
        ]
        entering = {value.name for value in part.inputs}
        extra = [site.uses[number].activation for site, number, name in taps if name not in entering]
        outputs = tuple(dict.fromkeys((*extra, *wanted)))
        session = self._tapping(index, index in feeds, outputs, layer) if outputs else None
        size = self._runtime.workers
        # As many chunks at a time as threads: their activations need not all fit in memory.
        for start in range(0, len(states), size):
            group = states[start : start + size]
            run = functools.partial(self._run, session, index=index, outputs=outputs, feeds=feeds)
            results = list(self._pool.map(run, group)) if session is not None else group
            for chunk, known in enumerate(results, start):
                yield chunk, known, taps

    def _step(self, state: State, index: int, feeds: Feeds) -> State:
        part = self._segments[index]
        if not part.outputs:
            return _behind(part, state)
        known = self._run(self._session(index, index in feeds), state, index, part.outputs, feeds)
        return _behind(part, known)

    def _run(
        self,
        session: ort.InferenceSession,
        state: State,
        index: int,
        outputs: Sequence[ir.Value],
        feeds: Feeds,
    ) -> State:
        """The state in front of a segment and the outputs of its session."""
        inputs = {value.name or "": state[value.name or ""] for value in self._segments[index].inputs}
        names = [value.name or "" for value in outputs]
        made = self._runtime.run(session, names, inputs | feeds.get(index, {}))
        return state | dict(zip(names, made, strict=True))

    def _weights(self, index: int, changed: Mapping[str, np.ndarray]) -> dict[str, ort.OrtValue]:
        """Feeds for all weights of an open segment."""
        if self._kept[0] != index:
            self._kept = (index, {})
        kept = self._kept[1]
        feeds: dict[str, ort.OrtValue] = {}
        for site in self._segments[index].sites:
            if site.name in changed:
                feeds[parts.weight_input(site)] = to_value(changed[site.name])
            else:
                if site.name not in kept:
                    kept[site.name] = to_value(self._stored(site.name))
                feeds[parts.weight_input(site)] = kept[site.name]
        return feeds

    def _session(self, index: int, opened: bool) -> ort.InferenceSession:
        key = (index, opened)
        with self._opening:
            if key not in self._sessions:
                part = self._build(index, opened, self._segments[index].outputs)
                self._sessions[key] = self._runtime.open_part(part)
            return self._sessions[key]

    def _tapping(
        self, index: int, opened: bool, outputs: Sequence[ir.Value], layer: str | None
    ) -> ort.InferenceSession:
        """A session of a segment that gives what its sites read, kept where it is of one of them: walks come again."""
        if layer is None or not opened:
            return self._runtime.open_part(self._build(index, opened, outputs))
        key = (index, layer)
        if key not in self._looking:
            self._looking[key] = self._runtime.open_part(self._build(index, opened, outputs))
        return self._looking[key]

    def _build(self, index: int, opened: bool, outputs: Sequence[ir.Value]) -> parts.Part:
        part = self._segments[index]
        sites = part.sites if opened else ()
        return parts.build(self._flow, part.nodes, inputs=part.inputs, outputs=outputs, open_sites=sites)


def _behind(part: Segment, state: State) -> State:
    """What later segments need of the values known behind a segment."""
    return {name: value for name, value in state.items() if name in part.keep}
