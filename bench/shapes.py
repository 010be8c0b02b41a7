"""Programs recorded at one size, run at others: of many models, how often the result is torch's, bit for bit, how often it is refused, and how often it is wrong.

    OMP_WAIT_POLICY=PASSIVE python bench/shapes.py --builder models.py [--names a b ...] [--mkldnn off] [--jobs 2] [--json out.json]

The builder is that of coverage.py. Each model is captured once, with `sizes=True`, on the builder's inputs. Then `porting.Engine` runs it, and torch runs it, on

batch     twice as many rows in every input that has a batch        longer    sequences of three more tokens
both      both                                                     image     images of twice the height and width
recorded  the sizes that were captured: what differs here is no matter of sizes

right: every output has torch's bits. refused: a sentence, no numbers. wrong: other bits, or an output is missing. torch: torch refuses such inputs (then
porting should, too: it counts as wrong if it gives numbers). kernel: other bits, of a model of which an output has other bits at the recorded sizes already.
"""

import collections
import os

import porting
import torch
from coverage import chosen_names, load_builder, parsed_options, reference_flags, run_all
from porting.hooks import ActivationCollector

SIZES = ("recorded", "batch", "longer", "both", "image")
VERDICTS = ("right", "refused", "torch", "kernel", "wrong")
IDS = ("input_ids", "decoder_input_ids", "inputs_embeds")


def batch_of(inputs):
    """How many rows the inputs have; None where there is no telling."""
    counts = {t.shape[0] for t in inputs.values() if isinstance(t, torch.Tensor) and t.ndim >= 2}
    return counts.pop() if len(counts) == 1 else None


def doubled(inputs):
    """Each tensor of `batch_of` rows with as many again, which are others."""
    rows = batch_of(inputs)
    if rows is None:
        return None
    return {name: torch.cat([t, t.roll(1, -1)]) if isinstance(t, torch.Tensor) and t.ndim and t.shape[0] == rows else t for name, t in inputs.items()}


def lengthened(inputs):
    """Three more tokens in whatever is as long as the sequence."""
    ids = next((inputs[name] for name in IDS if isinstance(inputs.get(name), torch.Tensor)), None)
    if ids is None:
        return None
    length = ids.shape[1]

    def longer(t):
        for axis in (1, 2, 3):
            if isinstance(t, torch.Tensor) and t.ndim in (2, 3) and axis < t.ndim and t.shape[axis] == length:
                t = torch.cat([t, t.narrow(axis, 0, min(3, length))], axis)
                break
        return t

    return {name: longer(t) for name, t in inputs.items()}


def enlarged(inputs):
    """Images of twice the height and width."""
    if not isinstance(inputs.get("pixel_values"), torch.Tensor) or inputs["pixel_values"].ndim != 4:
        return None
    return {name: t.repeat(1, 1, 2, 2) if name == "pixel_values" else t for name, t in inputs.items()}


def variants(inputs):
    batch, longer = doubled(inputs), lengthened(inputs)
    return {"recorded": inputs, "batch": batch, "longer": longer, "both": None if batch is None else lengthened(batch), "image": enlarged(inputs)}


def reference(model, inputs, path):
    """What torch returns, by leaf path, and what it was given, by name; the outputs are None if it refuses."""
    try:
        _, capture = ActivationCollector(model, path, include="^$", program=False, weights=False)(**inputs)
    except Exception:  # any of the model's own
        return None, {}
    with capture:
        call = capture.calls("")[0]
        names = {leaf: ".".join([call.input_names.get(leaf.partition(".")[0], leaf.partition(".")[0]), *leaf.split(".")[1:]]) for leaf in call.inputs}
        return {leaf: array.copy() for leaf, array in call.outputs.items()}, {names[leaf]: array.copy() for leaf, array in call.inputs.items()}


def verdict(engine, expected, given):
    """(verdict, sentence, outputs that differ)."""
    try:
        found = engine(**given)
    except porting.PortingError as error:
        return "torch" if expected is None else "refused", str(error), set()
    if expected is None:
        return "wrong", "it gives numbers where torch refuses", set()
    other = {leaf for leaf, array in expected.items() if leaf not in found or found[leaf].shape != array.shape or found[leaf].tobytes() != array.tobytes()}
    return ("wrong", f"other bits in {', '.join(sorted(other))}", other) if other else ("right", "", other)


def one(builder, name, options, folder):
    torch.manual_seed(0)
    model, inputs = builder.build(name)
    with reference_flags(options), torch.no_grad():
        _, capture = ActivationCollector(model, os.path.join(folder, "capture"), include="^$", sizes=True)(**inputs)
        row, blamed = {"name": name, "why": {}}, set()
        with capture:
            engine = porting.Engine(capture, provider="torch")
            for kind, changed in variants(inputs).items():
                if changed is None:
                    continue
                expected, given = reference(model, changed, os.path.join(folder, kind))
                if expected is None and kind != "recorded":
                    given = {key: t.numpy() for key, t in changed.items() if isinstance(t, torch.Tensor)}
                row[kind], row["why"][kind], other = verdict(engine, expected, given)
                if kind == "recorded":
                    blamed = other
                if row[kind] == "wrong" and other and blamed:
                    row[kind] = "kernel"
    return row


def print_row(row):
    if "error" in row:
        print(f"{row['name']:28s} ERROR {row['error']}", flush=True)
        return
    refused = next((row["why"][kind] for kind in SIZES if row.get(kind) in ("refused", "wrong")), "")
    print(f"{row['name']:28s} {' '.join(f'{row.get(kind, chr(45)):8s}' for kind in SIZES)} {refused[-160:]}", flush=True)


def print_totals(rows):
    good = [row for row in rows if "error" not in row]
    print(f"\n{len(good)} models ran, {len(rows) - len(good)} did not\n{'sizes':10s} {' '.join(f'{word:>8s}' for word in VERDICTS)}")
    for kind in SIZES:
        counts = collections.Counter(row.get(kind) for row in good)
        print(f"{kind:10s} {' '.join(f'{counts[word]:8d}' for word in VERDICTS)}")


def main():
    options = parsed_options(__doc__.split("\n")[0])
    builder = load_builder(options.builder)
    print(f"{'model':28s} {' '.join(f'{kind:8s}' for kind in SIZES)}")
    print_totals(run_all(one, print_row, builder, chosen_names(builder, options), options))


if __name__ == "__main__":
    main()
