"""One training run of the builtin network: what it is made of, its batches, its steps, its checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sppnet.backbones.builtin import BuiltinNet
from sppnet.errors import UserError
from sppnet.files import write_tensors
from sppnet.nn import SpatialPyramidPool2d
from sppnet.recipes.crops import UNKNOWN, TrainingImages, make_batch
from sppnet.recipes.distillation import Teacher, distillation_loss, measure_scales
from sppnet.recipes.muon import Muon

CHECKPOINT = ".checkpoint.safetensors"


@dataclass(frozen=True)
class Recipe:
    """What a training run is made of; saved in the checkpoint.

    Attributes:
        data: a folder of images. VOC folders give their train list only; whatever lies under a folder
            named ``test`` is left out.
        out: the weights to write (float16 safetensors); the checkpoint and the log lie beside it.
        teacher: SqueezeNet 1.0's tensors under torchvision's names; None learns from labels alone.
        labels: weight of the class loss beside the teacher's; without a teacher it is the only loss.
        exclude: globs, relative to ``data``, of images to leave out.
        minutes: the length of the run on the clock, resumed time included.
        steps: the length in steps instead; 0 takes ``minutes``.
        resume: go on from the checkpoint. The rate follows the length given now: a longer one lets it
            rise again.
        start: the checkpoint of another run whose network and average this one begins with; clock,
            rate and optimisers begin anew. Such a run may have labels where the other had none.
        batch: crops of 128x128 a step; larger crops come in smaller batches.
        rate: the highest learning rate of the kernels, by orthogonalised momentum.
        rate_rest: that of biases, normalisation and the classes' head, by Adam.
        repeats: how often each batch of crops is shown; the teacher runs once for all of them.
        chunk: batches that are made, then shown ``repeats`` times in changing order.
        single_size: every crop 128x128: the ablation of multi-size training.
        every: steps between checkpoints.
        seed: of everything random.
        device: where to train; ``auto`` is the GPU if there is one.
    """

    data: Path
    out: Path
    teacher: Path | None = None
    labels: float = 0.0
    exclude: tuple[str, ...] = ()
    minutes: float = 60.0
    steps: int = 0
    resume: bool = False
    start: Path | None = None
    batch: int = 32
    rate: float = 0.05
    rate_rest: float = 2e-3
    repeats: int = 3
    chunk: int = 48
    single_size: bool = False
    every: int = 200
    seed: int = 0
    device: str = "auto"


class ClassHead(nn.Module):
    """Both maps through a pyramid of 3x3, 2x2 and 1x1 bins to class scores; gone after training."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pool = SpatialPyramidPool2d((3, 2, 1))
        self.linear = nn.Linear(14 * sum(BuiltinNet.CHANNELS), classes)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """``[B, 256, h, w]`` and ``[B, 256, h', w']`` to ``[B, classes]``."""
        return self.linear(F.normalize(torch.cat([self.pool(fine), self.pool(coarse)], 1)) * 10)


@dataclass(frozen=True)
class Example:
    """A batch: images, labels, and the teacher's maps over their scales, where there is a teacher."""

    images: Tensor
    labels: Tensor
    targets: tuple[Tensor, ...]


@dataclass
class Run:
    """A training run under way: what a checkpoint holds."""

    recipe: Recipe
    net: BuiltinNet
    average: BuiltinNet
    head: ClassHead | None
    muon: Muon
    adam: torch.optim.Adam
    scales: tuple[Tensor, ...] = ()
    step: int = 0
    seconds: float = 0.0

    def progress(self) -> float:
        """The share of the run that is done, 0 to 1."""
        if self.recipe.steps:
            return min(1.0, self.step / self.recipe.steps)
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def share_of_rate(self) -> float:
        """Linear warm-up over 20 steps, then half a cosine to a hundredth."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress()))
        return cosine * min(1.0, (self.step + 1) / 20)

    def parts(self) -> dict[str, nn.Module]:
        """The modules that a checkpoint holds, by name."""
        parts: dict[str, nn.Module] = {"net": self.net, "average": self.average}
        return parts if self.head is None else parts | {"head": self.head}

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the recipe and the clock."""
        named: dict[str, Tensor] = {}
        for part, module in self.parts().items():
            named |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        named |= {f"muon.{number}": direction for number, direction in enumerate(self.muon.directions)}
        for number, state in self.adam.state_dict()["state"].items():
            named |= {f"adam.{number}.{name}": tensor for name, tensor in state.items()}
        named |= {f"scales.{number}": scale for number, scale in enumerate(self.scales)}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `tensors` gave."""
        for part, module in self.parts().items():
            module.load_state_dict(_strip(tensors, f"{part}."))
        for number, direction in enumerate(self.muon.directions):
            direction.copy_(tensors[f"muon.{number}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _strip(tensors, "adam.").items():
            number, field = name.split(".", 1)
            state.setdefault(int(number), {})[field] = tensor
        self.adam.load_state_dict({"state": state, "param_groups": self.adam.state_dict()["param_groups"]})
        self.scales = self.scales_of(tensors)

    def scales_of(self, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """The teacher's scales in a checkpoint, on this run's device."""
        return tuple(scale.to(pick_device(self.recipe)) for scale in _strip(tensors, "scales.").values())


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensors[name] for name in sorted(tensors) if name.startswith(prefix)}


def pick_device(recipe: Recipe) -> torch.device:
    """Where a recipe is trained."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if recipe.device == "auto" else recipe.device)


def beside(out: Path, suffix: str) -> Path:
    """A file of a run by the name of its weights."""
    return out.with_name(out.stem + suffix)


def start(recipe: Recipe, images: TrainingImages, teacher: Teacher | None) -> Run:
    """A run at step 0, or where its checkpoint left off.

    Raises:
        UserError: nothing to learn from, or ``resume`` or ``start`` without a checkpoint that fits.
    """
    labelled = teacher is None or recipe.labels > 0
    if labelled and len(images.names) < 2:
        raise UserError(recipe.data, "class folders to learn from", "no two classes", "Give a --teacher.")
    device = pick_device(recipe)
    torch.manual_seed(recipe.seed)
    net = BuiltinNet(folded=False).to(device).to(memory_format=torch.channels_last).train()
    average = BuiltinNet(folded=False).to(device).to(memory_format=torch.channels_last).eval()
    average.load_state_dict(net.state_dict())
    head = ClassHead(len(images.names)).to(device) if labelled else None
    rest = [p for p in net.parameters() if p.ndim == 1] + ([] if head is None else list(head.parameters()))
    adam = torch.optim.Adam(rest, lr=recipe.rate_rest)
    run = Run(recipe, net, average, head, Muon(p for p in net.parameters() if p.ndim > 1), adam)
    if recipe.resume:
        _resume(run)
        return run
    if recipe.start is not None:
        _start_from(run, recipe.start)
    if teacher is not None and not run.scales:
        generator = torch.Generator().manual_seed(recipe.seed)
        run.scales = measure_scales(teacher, [_batch(run, images, generator)[0] for _ in range(4)])
    return run


def _resume(run: Run) -> None:
    path = beside(run.recipe.out, CHECKPOINT)
    if not path.is_file():
        raise UserError(path, "the checkpoint of an earlier run", "no such file", "Leave --resume out.")
    try:
        run.restore(load_file(path))
        with safe_open(path, "pt") as file:
            clock = json.loads(file.metadata()["clock"])
    except (SafetensorError, KeyError, RuntimeError, ValueError) as problem:
        raise UserError(path, "a checkpoint of this recipe", problem) from problem
    run.step, run.seconds = clock["step"], clock["seconds"]


def _start_from(run: Run, path: Path) -> None:
    if not path.is_file():
        raise UserError(path, "the checkpoint of another run", "no such file")
    try:
        tensors = load_file(path)
        for part in ("net", "average"):
            run.parts()[part].load_state_dict(_strip(tensors, f"{part}."))
    except (SafetensorError, RuntimeError) as problem:
        raise UserError(path, "a checkpoint of the builtin network", problem) from problem
    # The same teacher's channels count as before, so that the loss goes on where it was.
    run.scales = run.scales_of(tensors)


def _batch(run: Run, images: TrainingImages, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    recipe, device = run.recipe, pick_device(run.recipe)
    batch, labels = make_batch(images, recipe.batch, generator, single_size=recipe.single_size)
    return batch.to(device, memory_format=torch.channels_last), labels.to(device)


def examples(run: Run, images: TrainingImages, teacher: Teacher | None) -> Iterator[Example]:
    """Batches with their targets from the run's step on, without end; the same for the same seed and step."""
    recipe = run.recipe
    number, skip = divmod(run.step, recipe.chunk * recipe.repeats)
    while True:
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number + 1)
        chunk: list[Example] = []
        for _ in range(recipe.chunk):
            batch, labels = _batch(run, images, generator)
            maps = () if teacher is None else teacher(batch)
            targets = tuple((m / s).half() for m, s in zip(maps, run.scales, strict=True))
            chunk.append(Example(batch, labels, targets))
        turns = [torch.randperm(recipe.chunk, generator=generator) for _ in range(recipe.repeats)]
        for i in torch.cat(turns).tolist()[skip:]:
            yield chunk[i]
        skip, number = 0, number + 1


def train_step(run: Run, example: Example) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One step on one batch.

    Returns:
        the loss, and both maps before their ReLU.
    """
    share = run.share_of_rate()
    run.adam.param_groups[0]["lr"] = run.recipe.rate_rest * share
    maps = run.net.before_relu(example.images)
    loss = maps[0].new_zeros(())
    for ours, target in zip(maps, example.targets, strict=bool(example.targets)):
        loss = loss + distillation_loss(ours, target.float())
    if run.head is not None:
        scores = run.head(torch.relu(maps[0]), torch.relu(maps[1]))
        told = (example.labels != UNKNOWN).sum().clamp(min=1)
        total = F.cross_entropy(scores, example.labels, ignore_index=UNKNOWN, reduction="sum")
        loss = loss + (run.recipe.labels if example.targets else 1.0) * total / told
    run.net.zero_grad(set_to_none=True)
    run.adam.zero_grad(set_to_none=True)
    loss.backward()
    run.muon.step(run.recipe.rate * share)
    run.adam.step()
    keep = min(0.998, (1 + run.step) / (10 + run.step))
    with torch.no_grad():
        for mean, value in zip(run.average.state_dict().values(), run.net.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)
    run.step += 1
    return loss.detach(), (maps[0].detach(), maps[1].detach())


def save(run: Run) -> None:
    """Write the checkpoint and the weights (the running average, folded, float16), each in one move."""
    recipe = run.recipe
    clock = json.dumps({"step": run.step, "seconds": run.seconds})
    settings = json.dumps({name: str(value) for name, value in asdict(recipe).items()})
    folded = run.average.fold().state_dict()
    weights = {name: tensor.half().contiguous().cpu() for name, tensor in folded.items()}
    checkpoint = beside(recipe.out, CHECKPOINT)
    for path, tensors, note in (
        (checkpoint, run.tensors(), {"clock": clock, "recipe": settings}),
        (recipe.out, weights, {"format": "pt"}),
    ):
        write_tensors(path, tensors, note)
