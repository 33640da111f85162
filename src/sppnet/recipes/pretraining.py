"""A training run of the builtin network: batches, steps and checkpoints.

Shapes: `B` batch, `H` and `W` height and width of a feature map.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sppnet.backbones.builtin import BuiltinNet, Unit
from sppnet.errors import UserError
from sppnet.files import write_tensors
from sppnet.nn import SpatialPyramidPool2d
from sppnet.recipes.crops import UNKNOWN, TrainingImages, make_batch
from sppnet.recipes.distillation import Teacher, measure_scales, standardised
from sppnet.recipes.muon import Muon
from sppnet.recipes.recipe import Recipe

CHECKPOINT = ".checkpoint.safetensors"
WEIGHTS = (0.5, 1.0, 1.0)
"""Weights of strides 8, 16 and 32 in the loss."""


class ClassHead(nn.Module):
    """Class scores from the feature maps, pooled in 3x3, 2x2 and 1x1 bins; used in training only."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pool = SpatialPyramidPool2d((3, 2, 1))
        self.linear = nn.Linear(14 * sum(BuiltinNet.CHANNELS), classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute scores ``[B, K]`` from the maps ``[B, C, H, W]`` of all strides."""
        return self.linear(F.normalize(torch.cat([self.pool(m) for m in maps], 1)) * 10)


@dataclass(frozen=True)
class Example:
    """A batch of images and labels, with the scaled maps of the teacher, if any."""

    images: Tensor
    labels: Tensor
    targets: tuple[Tensor, ...]


@dataclass
class Run:
    """The state of a training run, which a checkpoint stores."""

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
        """Return the completed fraction of the run, 0 to 1."""
        if self.recipe.steps:
            return min(1.0, self.step / self.recipe.steps)
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def share_of_rate(self) -> float:
        """Return the learning rate relative to its maximum: 20 steps of warm-up, then a cosine to 0.01."""
        cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.progress()))
        return cosine * min(1.0, (self.step + 1) / 20)

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules that a checkpoint stores, by name."""
        modules: dict[str, nn.Module] = {"net": self.net, "average": self.average}
        return modules if self.head is None else modules | {"head": self.head}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors of the state by name."""
        named: dict[str, Tensor] = {}
        for prefix, module in self.modules().items():
            named |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
        named |= {f"muon.{number}": direction for number, direction in enumerate(self.muon.directions)}
        for number, state in self.adam.state_dict()["state"].items():
            named |= {f"adam.{number}.{name}": tensor for name, tensor in state.items()}
        named |= {f"scales.{number}": scale for number, scale in enumerate(self.scales)}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Load the tensors that `tensors` returned."""
        for prefix, module in self.modules().items():
            module.load_state_dict(_strip(tensors, f"{prefix}."))
        for number, direction in enumerate(self.muon.directions):
            direction.copy_(tensors[f"muon.{number}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _strip(tensors, "adam.").items():
            number, field = name.split(".", 1)
            state.setdefault(int(number), {})[field] = tensor
        self.adam.load_state_dict({"state": state, "param_groups": self.adam.state_dict()["param_groups"]})
        self.scales = self.scales_of(tensors)

    def scales_of(self, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Select the scales of the teacher from a checkpoint and move them to the device of the run."""
        return tuple(scale.to(pick_device(self.recipe)) for scale in _strip(tensors, "scales.").values())


def _strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Select the tensors whose names start with a prefix and remove it."""
    return {name.removeprefix(prefix): tensors[name] for name in sorted(tensors) if name.startswith(prefix)}


def pick_device(recipe: Recipe) -> torch.device:
    """Return the device of a training run."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(automatic if recipe.device == "auto" else recipe.device)


def beside(out: Path, suffix: str) -> Path:
    """Return the path of another file of a run, from that of its weights."""
    return out.with_name(out.stem + suffix)


def start(recipe: Recipe, images: TrainingImages, teacher: Teacher | None) -> Run:
    """Create a run at step 0, or restore it from its checkpoint.

    Args:
        recipe: the options.
        images: the training images.
        teacher: the teacher, if any.

    Returns:
        The run.

    Raises:
        UserError: there are neither classes nor a teacher, or the checkpoint for ``resume`` or ``start``
            is missing or belongs to other options.
    """
    labelled = teacher is None or recipe.labels > 0
    if labelled and len(images.names) < 2:
        got = f"{len(images.names)} class folders"
        raise UserError(recipe.data, "at least two class folders", got, "Pass --teacher.")
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
        _start_from(run, recipe.start, images)
    if teacher is not None and not run.scales:
        generator = torch.Generator().manual_seed(recipe.seed)
        run.scales = measure_scales(teacher, [_batch(run, images, generator)[0] for _ in range(4)])
    return run


def _resume(run: Run) -> None:
    path = beside(run.recipe.out, CHECKPOINT)
    if not path.is_file():
        raise UserError(path, "the checkpoint of an earlier run", "no such file", "Omit --resume.")
    try:
        run.restore(load_file(path))
        with safe_open(path, "pt") as file:
            clock = json.loads(file.metadata()["clock"])
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(path, "a checkpoint of this recipe", error) from error
    run.step, run.seconds = clock["step"], clock["seconds"]


def _start_from(run: Run, path: Path, images: TrainingImages) -> None:
    if not path.is_file():
        raise UserError(path, "the checkpoint of another run", "no such file")
    try:
        tensors = load_file(path)
        if _strip(tensors, "net."):
            for name in ("net", "average"):
                run.modules()[name].load_state_dict(_strip(tensors, f"{name}."))
            # With the scales of the other run, the channels of the teacher have equal weights in both losses.
            run.scales = run.scales_of(tensors)
        else:
            generator = torch.Generator().manual_seed(run.recipe.seed)
            unfold(run.net, tensors, _batch(run, images, generator)[0])
            run.average.load_state_dict(run.net.state_dict())
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise UserError(path, "a checkpoint or folded weights of the builtin network", error) from error


@torch.no_grad()
def unfold(net: BuiltinNet, folded: Mapping[str, Tensor], images: Tensor) -> None:
    """Load folded weights into a network with batch normalisation.

    The normalisation is set so that it has no effect on these images. Heads remain as they are, and so do the
    layers of stride 32 if the folded network has none.

    Args:
        net: an unfolded network.
        folded: weights of a folded network of any version.
        images: normalised images ``[B, 3, H, W]``.

    Raises:
        KeyError: the weights are those of another network.
    """
    names = {module: name for name, module in net.named_modules()}

    def load(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, Unit)
        assert isinstance(module.norm, nn.BatchNorm2d)
        name = f"{names[module]}.conv.weight"
        if name not in folded and name.startswith("deep."):
            return  # version 1 has no stride 32
        module.conv.weight.copy_(folded[name])
        values = module.conv(inputs[0])
        module.norm.weight.copy_((values.var((0, 2, 3), correction=0) + module.norm.eps).sqrt())
        module.norm.bias.copy_(values.mean((0, 2, 3)) + folded[f"{names[module]}.conv.bias"].to(values))

    hooks = [m.register_forward_pre_hook(load) for m in net.modules() if isinstance(m, Unit)]
    net.train()(images)
    for hook in hooks:
        hook.remove()


def _batch(run: Run, images: TrainingImages, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    recipe, device = run.recipe, pick_device(run.recipe)
    batch, labels = make_batch(images, recipe.batch, generator, single_size=recipe.single_size)
    return batch.to(device, memory_format=torch.channels_last), labels.to(device)


def examples(run: Run, images: TrainingImages, teacher: Teacher | None) -> Iterator[Example]:
    """Yield batches with their targets, from the step of the run on; they depend on seed and step only."""
    recipe = run.recipe
    number, skip = divmod(run.step, recipe.chunk * recipe.repeats)
    while True:
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + number + 1)
        chunk: list[Example] = []
        for _ in range(recipe.chunk):
            batch, labels = _batch(run, images, generator)
            maps = () if teacher is None else teacher(batch)
            targets = tuple(standardised(m, s).half() for m, s in zip(maps, run.scales, strict=True))
            chunk.append(Example(batch, labels, targets))
        turns = [torch.randperm(recipe.chunk, generator=generator) for _ in range(recipe.repeats)]
        for i in torch.cat(turns).tolist()[skip:]:
            yield chunk[i]
        skip, number = 0, number + 1


def train_step(run: Run, example: Example) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Train on one batch.

    Args:
        run: the run, which is updated.
        example: the batch.

    Returns:
        The loss, and the feature maps.
    """
    share = run.share_of_rate()
    run.adam.param_groups[0]["lr"] = run.recipe.rate_rest * share
    maps = run.net(example.images)
    loss = maps[0].new_zeros(())
    for student, target, weight in zip(maps, example.targets, WEIGHTS, strict=bool(example.targets)):
        loss = loss + weight * F.mse_loss(student, target.float())
    if run.head is not None:
        scores = run.head(maps)
        labelled = (example.labels != UNKNOWN).sum().clamp(min=1)
        total = F.cross_entropy(scores, example.labels, ignore_index=UNKNOWN, reduction="sum")
        loss = loss + (run.recipe.labels if example.targets else 1.0) * total / labelled
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
    return loss.detach(), tuple(m.detach() for m in maps)


def in_units(net: BuiltinNet, scales: Sequence[Tensor]) -> BuiltinNet:
    """Return a network in the units of the teacher from one that predicts standardised channels.

    Args:
        net: the folded network, which is changed.
        scales: ``[2, C]`` per layer; empty for no change.
    """
    heads = (net.fine_head, net.coarse_head, net.deep_head)
    with torch.no_grad():
        for head, (mean, spread) in zip(heads, scales, strict=bool(scales)):
            assert head.bias is not None
            head.weight.mul_(spread[:, None, None, None])
            head.bias.mul_(spread).add_(mean)
    return net


def save(run: Run) -> None:
    """Write the checkpoint and the weights (running average, folded, float16), each atomically."""
    recipe = run.recipe
    clock = json.dumps({"step": run.step, "seconds": run.seconds})
    settings = json.dumps({name: str(value) for name, value in asdict(recipe).items()})
    folded = in_units(run.average.fold(), run.scales).state_dict()
    weights = {name: tensor.half().contiguous().cpu() for name, tensor in folded.items()}
    checkpoint = beside(recipe.out, CHECKPOINT)
    for path, tensors, metadata in (
        (checkpoint, run.tensors(), {"clock": clock, "recipe": settings}),
        (recipe.out, weights, {"format": "pt"}),
    ):
        write_tensors(path, tensors, metadata)
