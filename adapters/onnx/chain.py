"""Run a graph segment by segment, with any weights replaced, reusing what comes before the first change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnxruntime as ort

from lampq.adapters.onnx import parts
from lampq.adapters.onnx.cuts import Segment
from lampq.adapters.onnx.flow import Flow
from lampq.adapters.onnx.session import Runtime, to_value
from lampq.adapters.onnx.sites import Site

State = dict[str, ort.OrtValue]
"""The computed values that later segments still need, by name."""


class Chain:
    """The segments of a graph and their sessions.

    A segment has up to two sessions, opened when first needed: one with its weights as constants, which the
    runtime packs and fuses once, and one that takes them as inputs.

    Args:
        flow: The graph.
        segments: Its segments, in order.
        runtime: How sessions are opened.
        stored: Gives the stored array of a layer, float32.
    """

    def __init__(
        self, flow: Flow, segments: Sequence[Segment], runtime: Runtime, stored: Callable[[str], np.ndarray]
    ) -> None:
        self._flow = flow
        self._segments = tuple(segments)
        self._runtime = runtime
        self._stored = stored
        self._closed: dict[int, ort.InferenceSession] = {}
        self._open: dict[int, ort.InferenceSession] = {}
        # Stored weights of the open segment in use; a sweep stays in one segment for many runs.
        self._fed: tuple[int, dict[str, ort.OrtValue]] = (-1, {})
        self.first = {
            site.name: index
            for index, part in reversed(tuple(enumerate(self._segments)))
            for site in part.sites
        }

    def __len__(self) -> int:
        return len(self._segments)

    def start(self, inputs: Mapping[str, np.ndarray]) -> State:
        """The state in front of the first segment."""
        return {name: to_value(array) for name, array in inputs.items()}

    def advance(self, state: State, index: int, weights: Mapping[str, np.ndarray]) -> State:
        """The state behind a segment, given the one in front of it and the weights that are not as stored.

        Raises:
            AdapterError: The runtime fails.
        """
        part = self._segments[index]
        feeds = {value.name or "": state[value.name or ""] for value in part.inputs}
        if any(site.name in weights for site in part.sites):
            session = self._open_session(index)
            feeds |= self._weights(index, weights)
        else:
            session = self._closed_session(index)
        names = [value.name or "" for value in part.outputs]
        made = dict(zip(names, self._runtime.run(session, names, feeds), strict=True))
        return _behind(part, state | made)

    def finish(self, state: State, index: int, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output of the graph, given the state in front of a segment."""
        for step in range(index, len(self._segments)):
            state = self.advance(state, step, weights)
        return state[self._flow.output.name or ""].numpy()

    def taps(
        self, states: list[State], weights: Mapping[str, np.ndarray]
    ) -> Iterator[tuple[Site, int, int, np.ndarray]]:
        """Inputs of all sites, segment by segment.

        Args:
            states: States in front of the first segment, one per chunk of a batch; advanced in place.
            weights: Weights that differ from the stored.

        Yields:
            Site, index of its use, index of the chunk, and the activation as the operator reads it.
        """
        for index, part in enumerate(self._segments):
            inside = set(part.nodes)
            wanted = [
                (site, number, use.activation)
                for site in part.sites
                for number, use in enumerate(site.uses)
                if use.node in inside and use.slot.form != "lookup"
            ]
            given = set(part.inputs)
            extra = [value for _, _, value in wanted if value not in given]
            outputs = list(dict.fromkeys((*extra, *part.outputs)))
            changed = any(site.name in weights for site in part.sites)
            opened = part.sites if changed else ()
            model = parts.build(
                self._flow, part.nodes, inputs=part.inputs, outputs=outputs, open_sites=opened
            )
            session = self._runtime.open_part(model)
            names = [value.name or "" for value in outputs]
            for chunk, state in enumerate(states):
                feeds = {value.name or "": state[value.name or ""] for value in part.inputs}
                feeds |= self._weights(index, weights) if changed else {}
                found = state | dict(zip(names, self._runtime.run(session, names, feeds), strict=True))
                states[chunk] = _behind(part, found)
                for site, number, value in wanted:
                    yield site, number, chunk, found[value.name or ""].numpy()

    def _weights(self, index: int, changed: Mapping[str, np.ndarray]) -> dict[str, ort.OrtValue]:
        """Feeds for all weights of an open segment."""
        feeds: dict[str, ort.OrtValue] = {}
        if self._fed[0] != index:
            self._fed = (index, {})
        cached = self._fed[1]
        for site in self._segments[index].sites:
            if site.name in changed:
                feeds[parts.weight_input(site)] = to_value(changed[site.name])
            else:
                if site.name not in cached:
                    cached[site.name] = to_value(self._stored(site.name))
                feeds[parts.weight_input(site)] = cached[site.name]
        return feeds

    def _closed_session(self, index: int) -> ort.InferenceSession:
        if index not in self._closed:
            self._closed[index] = self._runtime.open_part(self._build(index, ()))
        return self._closed[index]

    def _open_session(self, index: int) -> ort.InferenceSession:
        if index not in self._open:
            self._open[index] = self._runtime.open_part(self._build(index, self._segments[index].sites))
        return self._open[index]

    def _build(self, index: int, opened: Iterable[Site]) -> parts.Part:
        part = self._segments[index]
        return parts.build(
            self._flow, part.nodes, inputs=part.inputs, outputs=part.outputs, open_sites=opened
        )


def _behind(part: Segment, state: State) -> State:
    """What later segments need of the values known behind a segment."""
    return {name: value for name, value in state.items() if name in part.keep}
