"""What a profile measures, and how."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lampq.core.values.blocks import check_block
from lampq.core.values.choices import refuse_unknown
from lampq.core.values.errors import RecordError
from lampq.core.values.fisher_kinds import KINDS, TRUE
from lampq.core.values.measure_kinds import AUTO, MEASURES
from lampq.core.values.option import Option, all_options
from lampq.core.values.range_kinds import RANGES
from lampq.core.values.rewrite_kinds import NONE, REWRITES
from lampq.core.values.rounding_kinds import CORRECTED, INPUTS, NEAREST, form_of, profiled
from lampq.core.values.score import Score
from lampq.core.values.selection import Selection
from lampq.core.values.site_kinds import INPUTS as INPUT_SITES
from lampq.core.values.site_kinds import SITES

CONTAINERS = ("bitplane", "int8")
"""How codes are stored: exactly b bits a weight, or one byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Widths to measure, how weights and inputs are rounded, and where Fisher traces come from.

    Attributes:
        bits: Weight widths.
        ranks: Ranks of factors beside the weights that give back what rounding takes (`core.quantizing.low_rank`), each
            with every width; 0, without any, is always among them. For ONNX files, with rounding to inputs, which stay
            float.
        act_bits: Width or widths of the layers' inputs; None leaves them float. PyTorch models take 2 to 8 and 16
            and are measured with their inputs rounded, every weight width with every input width, and so are ONNX
            models where PyTorch has their operators; others take 8.
        act_range: How the range of an input is chosen: `mse`, `minmax` or `percentile` of the calibration data, or
            `token`: each token its own. None is `mse` where rounded inputs are measured, and `minmax`, the only one,
            where a written file alone rounds them: TFLite, and ONNX with 8 or 16 bits everywhere.
        sites: `inputs` of layers, or `all`: factors of products of two activations too (queries, keys, probabilities,
            values), the left ones at the widths of weights, the right ones at those of inputs. PyTorch models, and ONNX
            models where PyTorch has their operators.
        quantizers: Tags of the quantizers (`core.treatments`) that sites choose among, by measured gradients; None
            takes all of them where `sites` is `all`, else `act_range`.
        rewrites: Whether and how normalizations that layers alone read are rewritten (`core.values.norm_rewrite`):
            `none`, `one_range`, `clipped`, or `measured`: each in the way that loses least, or not at all. PyTorch
            models alone.
        tolerance: Where rounding weights and inputs apart predicts the damage of rounding both to within this
            fraction, the prediction is taken instead of a measurement; 0 measures every pair of widths.
        container: `bitplane` (exactly b bits a weight) or `int8`.
        block: Weights of a row that share a scale; None gives each output channel one.
        rounding: `nearest`, or `inputs`: codes are chosen for the least error of the layers' outputs on the
            calibration inputs, which costs time and loses several times less at low widths. Applying the plan
            then needs those inputs too. `corrected` is `inputs` for a profile; `quantize` then lets every layer make up
            for those before it (`core.measuring.correction`), where that measures better.
        refine: Steps that `quantize` then learns the codes of each block in, where that measures better (PyTorch); a
            profile has none of it.
        measure: Where damage and interactions come from: `gradients`, all layers and options from a few backward
            passes; `differences`, one layer quantized at a time; or `auto`, gradients where the model has them and
            they agree with a few differences. Differences alone tell how many decisions change.
        fisher: `true`, with labels drawn from the predictions (from forward passes where the model has no
            gradients), `empirical`, with `labels`, or `forward`.
        fisher_draws: Draws per sample, or perturbations per layer with forward passes; 0 skips the traces.
        seed: Of the draws, >= 0.
        keep: Patterns of layers that stay float: names with `*` and `{a,b}`, or kinds.
        only: Patterns of the layers to quantize; where there are any, all others stay float.
        labels: Labels of the data, shape (samples,), or None.
        data_summary: Said of the data in the provenance.
        scores: Scores, or names of scores, whose own tables are measured too.
    """

    bits: tuple[int, ...] = tuple(range(2, 9))
    ranks: tuple[int, ...] = (0,)
    act_bits: tuple[int, ...] | None = None
    act_range: str | None = None
    sites: str = INPUT_SITES
    quantizers: tuple[str, ...] | None = None
    rewrites: str = NONE
    tolerance: float = 0.1
    container: str = CONTAINERS[0]
    block: int | None = None
    rounding: str = NEAREST
    refine: int = 0
    measure: str = AUTO
    fisher: str = TRUE
    fisher_draws: int = 2
    seed: int = 0
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    labels: np.ndarray | None = field(default=None, compare=False, repr=False)
    data_summary: Mapping[str, Any] = field(default_factory=dict)
    scores: tuple[str | Score, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", tuple(sorted(set(self.bits))))
        ranks = (self.ranks,) if isinstance(self.ranks, int) else self.ranks
        object.__setattr__(self, "ranks", tuple(sorted({0, *ranks})))
        if self.act_bits is not None:
            inputs = [self.act_bits] if isinstance(self.act_bits, int) else self.act_bits
            object.__setattr__(self, "act_bits", tuple(sorted(set(inputs))))
        for patterns in ("keep", "only"):
            named = getattr(self, patterns)
            object.__setattr__(self, patterns, (named,) if isinstance(named, str) else tuple(named))
        object.__setattr__(self, "data_summary", self.data_summary or {})
        if self.quantizers is not None:
            tags = [self.quantizers] if isinstance(self.quantizers, str) else self.quantizers
            object.__setattr__(self, "quantizers", tuple(tags))
        if self.chooses_quantizers and self.act_bits is None:
            raise RecordError("sites and quantizers need the widths of activations: give --act-bits too")
        if self.chooses_quantizers and self.act_range is not None:
            raise RecordError(
                "quantizers choose their own ranges; leave out --act-range, or --sites and --quantizers"
            )
        if self.refine < 0 or (self.refine and self.rounding not in (INPUTS, CORRECTED)):
            raise RecordError(
                f"{self.refine} steps of refinement, rounding {self.rounding}: learning takes at least 1 step, and "
                f"starts from codes for the layers' inputs (rounding inputs or corrected)"
            )
        if self.ranked and (self.refine or self.rounding not in (INPUTS, CORRECTED)):
            raise RecordError(
                "factors of low rank are cut to the layers' inputs: ranks go with rounding inputs or corrected, and "
                "with codes that are not learned"
            )
        if self.ranked and self.act_bits is not None:
            raise RecordError(
                "ranks are measured beside float inputs: leave out --act-bits, or put factors into a plan by --low-rank"
            )
        if self.rewrites != NONE and self.act_bits is None:
            raise RecordError("rewrites even out what activations are rounded from: give --act-bits too")
        scores = [self.scores] if isinstance(self.scores, str | Score) else self.scores
        object.__setattr__(self, "scores", tuple(scores))
        if not self.options:
            raise RecordError("no widths to measure; name at least one")
        check_block(self.block)
        for what, name, names in (
            ("container", self.container, CONTAINERS),
            ("measure", self.measure, MEASURES),
            ("Fisher traces", self.fisher, KINDS),
            ("activation range", self.act_range, (None, *RANGES)),
            ("sites", self.sites, SITES),
            ("rewrites", self.rewrites, REWRITES),
        ):
            if name not in names:
                raise RecordError(f"{what} {name!r} is none of {', '.join(filter(None, names))}")
        if form_of(self.rounding) is not None and (self.container != CONTAINERS[0] or self.block is not None):
            raise RecordError(
                f"weights in the form {self.rounding} have scales of their own, and are stored as they are; leave out "
                f"--block and --container"
            )
        if not 0 <= self.tolerance < math.inf or self.fisher_draws < 0 or self.seed < 0:
            raise RecordError(
                f"tolerance {self.tolerance}, {self.fisher_draws} draws, seed {self.seed}: must be at least 0"
            )

    @classmethod
    def of(cls, measurement: Measurement | None = None, **choices: Any) -> Measurement:
        """A measurement with further choices, each by the name of a field.

        Args:
            measurement: What to begin with.
            **choices: Fields to set.

        Raises:
            RecordError: A name is unknown, or a choice cannot be.

        >>> Measurement.of(bits=(4, 2), act_bits=8).options
        (Option(weight_bits=2, activation_bits=8), Option(weight_bits=4, activation_bits=8))
        """
        refuse_unknown(choices, cls.names(), "a measurement")
        return replace(measurement or cls(), **choices)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that `of` knows."""
        return tuple(entry.name for entry in fields(cls))

    @property
    def chooses_quantizers(self) -> bool:
        """Whether sites choose among quantizers; otherwise layers' inputs have grids by `act_range`."""
        return self.sites != INPUT_SITES or self.quantizers is not None

    @property
    def ranked(self) -> bool:
        """Whether layers may have factors of low rank."""
        return len(self.ranks) > 1

    @property
    def profiled(self) -> str:
        """The rounding that a profile measures."""
        return profiled(self.rounding)

    @property
    def selection(self) -> Selection:
        """Which layers are measured."""
        return Selection(keep=self.keep, only=self.only)

    @property
    def options(self) -> tuple[Option, ...]:
        """Every weight width with every input width and every rank, increasing."""
        return all_options(self.bits, self.act_bits, self.ranks)
