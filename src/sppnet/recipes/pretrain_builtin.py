"""Train the builtin network from random weights on any folder of images.

    python -m sppnet.recipes.pretrain_builtin --data DIR --teacher FILE --out FILE.safetensors --minutes 60

With a teacher, the network learns to give the maps of a pretrained SqueezeNet 1.0 at strides 8 and 16,
cell by cell; with labels, to tell class folders apart through a spatial pyramid. Size and shape of the
random crops change from batch to batch (multi-size training, paper section 2.3). Killed or finished,
``--resume`` goes on from the last checkpoint with the same batches in the same order; ``--start FILE``
begins a new run with the network of another one's checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TextIO

from sppnet.backbones.builtin import BuiltinNet
from sppnet.errors import UserError
from sppnet.files import make_folder
from sppnet.recipes.crops import read_images
from sppnet.recipes.distillation import explained, load_teacher
from sppnet.recipes.pretraining import Recipe, Run, beside, examples, pick_device, save, start, train_step


def pretrain(recipe: Recipe) -> Run:
    """Train, save, and log to ``<out>.log.jsonl``.

    Raises:
        UserError: no images, nothing to learn from, no such teacher, or nothing to resume.
    """
    teacher = None if recipe.teacher is None else load_teacher(recipe.teacher, pick_device(recipe))
    images = read_images(recipe.data, recipe.exclude)
    make_folder(recipe.out.parent)
    run = start(recipe, images, teacher)
    begun = time.monotonic() - run.seconds
    with beside(recipe.out, ".log.jsonl").open("a" if recipe.resume else "w") as log:
        batches = examples(run, images, teacher)
        while run.progress() < 1:
            example = next(batches)
            loss, maps = train_step(run, example)
            run.seconds = time.monotonic() - begun
            if run.step % 20 == 0 or run.progress() >= 1:
                shares = [float(explained(m, t.float())) for m, t in zip(maps, example.targets, strict=False)]
                _report(run, log, float(loss), shares)
            if run.step % recipe.every == 0:
                save(run)
    save(run)
    return run


def _report(run: Run, log: TextIO, loss: float, shares: list[float]) -> None:
    rate = run.recipe.rate * run.share_of_rate()
    line: dict[str, float] = {"step": run.step, "seconds": round(run.seconds, 1), "rate": round(rate, 7)}
    line["loss"] = round(loss, 5)
    for stride, share in zip(BuiltinNet.STRIDES, shares, strict=False):
        line[f"explained_{stride}"] = round(share, 5)
    log.write(json.dumps(line) + "\n")
    log.flush()
    done = run.progress()
    left = run.seconds / done * (1 - done) / 60
    told = "".join(f" {share:.3f}" for share in shares)
    text = f"step {run.step}  {done:.0%}  loss {loss:.4f}  explained{told}  {left:.1f} min left"
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Read the flags and train."""
    import tyro

    try:
        pretrain(tyro.cli(Recipe, description=__doc__))
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
