"""Train the builtin network from random weights on any folder of images.

    python -m sppnet.recipes.pretrain_builtin --data DIR --teacher FILE --out FILE.safetensors --minutes 60

With a teacher, the network is trained to predict the feature maps of EfficientNet-Lite2 at strides 8, 16 and
32. With labels, it is trained to classify images by their class folders, through a spatial pyramid.
Size and aspect of the crops change from batch to batch (multi-size training, He et al. 2015, section 2.3).
``--resume`` continues an interrupted or finished run from its last checkpoint, with the same batches in the
same order. ``--start FILE`` begins a new run with the weights of another checkpoint, or with folded weights.
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
    """Train the network, save checkpoints and weights, and log to ``<out>.log.jsonl``.

    Args:
        recipe: the options.

    Returns:
        The finished run.

    Raises:
        UserError: there are no images, neither classes nor a teacher, no file of the teacher or no
            checkpoint.
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
                pairs = zip(maps, example.targets, strict=False)
                _report(run, log, float(loss), [float(explained(m, t.float())) for m, t in pairs])
            if run.step % recipe.every == 0:
                save(run)
    save(run)
    return run


def _report(run: Run, log: TextIO, loss: float, variances: list[float]) -> None:
    """Log a step and print it to stderr; ``variances`` are the explained fractions per stride."""
    rate = run.recipe.rate * run.share_of_rate()
    line: dict[str, float] = {"step": run.step, "seconds": round(run.seconds, 1), "rate": round(rate, 7)}
    line["loss"] = round(loss, 5)
    for stride, variance in zip(BuiltinNet.STRIDES, variances, strict=False):
        line[f"explained_{stride}"] = round(variance, 5)
    log.write(json.dumps(line) + "\n")
    log.flush()
    done = run.progress()
    left = run.seconds / done * (1 - done) / 60
    values = "".join(f" {variance:.3f}" for variance in variances)
    text = f"step {run.step}  {done:.0%}  loss {loss:.4f}  explained{values}  {left:.1f} min left"
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Read the flags and train."""
    import tyro

    try:
        pretrain(tyro.cli(Recipe, description=__doc__))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
