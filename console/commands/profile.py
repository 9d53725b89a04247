"""`lampq profile`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from lampq.console import clashes, flags, given, measure_flags, render, running, synthetic
from lampq.core.values.errors import RecordError
from lampq.verbs import processes
from lampq.verbs.inspect import inspect
from lampq.verbs.profile import profile

EXAMPLE = "lampq profile vit.onnx --data calib/ -o profile.json"


def add_arguments(sub: ArgumentParser) -> None:
    """The flags of the verb."""
    flags.model(sub)
    flags.data(sub, required=False, refusable=True)
    synthetic.add_arguments(sub)
    flags.no_size(sub)
    measure_flags.measure(sub)
    measure_flags.scores(sub)
    measure_flags.selection(sub)
    measure_flags.shard(sub)
    running.add_arguments(sub)
    flags.output(sub, "profile to write (JSON; its arrays go beside it as .npz)", clashes.profile_pair)


def run(args: Namespace) -> None:
    """Run the verb; processes started by torchrun share the samples, and the first of them writes."""
    own = processes.own_shard()
    if own is not None and args.shard is not None:
        raise RecordError(f"--shard {args.shard}: torchrun divides the samples itself; leave it out")
    first = own is None or own.index == 1
    model = given.read_model(args)
    data = None if args.no_data else given.read_dataset(args, model)
    inputs = None if data is None else data.inputs()
    with running.work(args, model, inputs, own) as work:
        measurement = given.measurement(args, data)
        result = profile(model, inputs, measurement, shard=own or args.shard, work=work)
        if own is not None:
            result = processes.gather(result)
        if first:
            result.write(args.out, force=args.force)
    if first:
        given.finish(args, lambda: inspect(args.out).to_json(), lambda: render.listing(inspect(args.out)))
