"""Training of a method, step by step: phases, optimisers, losses and the order of updates.

A recipe knows its model; no model knows its recipe. The registry brings the two together.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inpaint_ops import checks
from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models.blocks import lines, pictures
from inpaint_ops.models.trainable import Trainable

# What feature networks are made of, or one.
Features = nn.Module | str | os.PathLike[str] | Mapping[str, Any]
Function = TypeVar("Function", bound=Callable[..., Any])
# Puts something around a network.
Wrap = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Phase:
    """A stretch of the training.

    Attributes:
        name: of the phase.
        iterations: the source's number of steps, None where it says nothing.
        batch: the source's batch size, None where it says nothing.
        numbers: learning rates, loss weights and the like by name. The arguments of
            `InpaintingModel.recipe` replace them.
    """

    name: str
    iterations: int | None = None
    batch: int | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


def ends_graph(function: Function) -> Function:
    """Leave a function out of compiled code, which ends a graph where it is called."""
    left_out: Function = torch.compiler.disable(function)
    return left_out


class TrainingRecipe:
    """Optimisers, loss weights and the order of updates of one phase of a method.

    Subclasses set `phases` and define `build_optimizers` and `update`; `trained`, if a phase leaves
    some networks alone. `update` calls networks by their forward pass alone, and reads no other
    attribute of them: `wrap` may have put something around them.

    Args:
        model: an `InpaintingModel`.
        phase: name of a phase; the first one if None.
        features: for phases whose losses need them, `needs_features`: a VGG file with torchvision's
            keys, or its state dict, of which a `FeatureNetwork` is made as the source does
            (`feature_network`); or such a network, which must be that one. Any other module that
            maps (N, 3, H, W) to a dict of those layers is taken as it is.
        scaler: of losses, for steps under float16's autocast: ``torch.amp.GradScaler(device)``.
        wrap: called with each network that the phase trains, before the optimisers are made; what
            it returns takes the network's place in the steps. `DistributedDataParallel`,
            `torch.compile` and `fully_shard` are such functions. The networks that `model` itself
            holds stay as they are, so that it completes pictures and is saved as before.
        overrides: replacements of the phase's numbers by name.

    Attributes:
        model: the model, or with `wrap` a view of it with what that returned.
        phase: the `Phase`.
        numbers: its numbers with the replacements.
        optimizers: by name.
        iteration: steps done.
        random: generator of all random numbers of the recipe; seed it for repeatable runs.

    Raises:
        FileNotFoundError: there is no such file of features.
        TypeError: a number the phase does not have, or `wrap` returns no module.
        ValueError: unknown phase, non-finite number, features missing or not the source's.
    """

    phases: ClassVar[tuple[Phase, ...]] = ()
    # Names of the loss weights whose losses need `features`, and the arguments of `FeatureNetwork`
    # with which the source of the method makes them.
    feature_losses: ClassVar[tuple[str, ...]] = ()
    feature_network: ClassVar[Mapping[str, Any]] = {}
    # Names of the phases of a whole training, one after the other; None: all, in their order.
    sequence: ClassVar[tuple[str, ...] | None] = None
    # The holes of the source's training, of `inpaint_ops.masks.HOLE_KINDS`.
    hole_kind: ClassVar[str] = "free-form"

    def __init__(
        self,
        model: Trainable,
        phase: str | None = None,
        *,
        features: Features | None = None,
        scaler: torch.amp.GradScaler | None = None,
        wrap: Wrap | None = None,
        **overrides: float,
    ) -> None:
        known = {p.name: p for p in self.phases}
        name = self.phases[0].name if phase is None else phase
        op = f"{model.name}.recipe"
        checks.check_choice(op, "phase", name, tuple(known))
        self.model = model
        self.phase = known[name]
        for key, value in overrides.items():
            if key not in self.phase.numbers:
                numbers = ", ".join(sorted(self.phase.numbers))
                raise TypeError(f"{op}: phase {name} has no number {key!r}, only {numbers}")
            checks.check_finite(op, key, value)
        self.scaler = scaler
        self.numbers: dict[str, float] = {**self.phase.numbers, **overrides}
        needed = self.needs_features(self.numbers)
        self.features = self._checked_features(op, features) if needed else None
        self.iteration = 0
        self._part, self._parts = 0, 1
        self._descended: set[str] = set()
        self.random = torch.Generator()
        self.random.manual_seed(0)
        if wrap is not None:
            self.model = _with_wrapped(model, self.trained, wrap)
        self.optimizers: dict[str, Optimizer] = self.build_optimizers()

    @classmethod
    def needs_features(cls, numbers: Mapping[str, float]) -> bool:
        """Return whether a phase with these numbers has losses of features, not all weighted 0."""
        return any(numbers.get(name, 0) != 0 for name in cls.feature_losses)

    def _checked_features(self, op: str, features: Features | None) -> nn.Module:
        """Return the feature network of a phase that needs one."""
        asked = self.feature_network
        words = ", ".join(f"{key}={value!r}" for key, value in asked.items() if key != "name")
        source = f"FeatureNetwork({asked['name']!r}, file, {words})"
        phase = self.phase.name
        if features is None:
            raise ValueError(
                f"{op}: features must be given in phase {phase}: a file of {asked['name']} with "
                f"torchvision's keys, of which {source} is made, as the method's source does; got "
                f"None; with {_zeros(self.feature_losses)} there are no such losses"
            )
        if not isinstance(features, nn.Module):
            return FeatureNetwork(weights=features, **asked)
        if isinstance(features, FeatureNetwork):
            wrong = [
                f"{key}={getattr(features, key)!r}"
                for key, value in asked.items()
                if not features.has(key, value)
            ]
            if wrong:
                raise ValueError(
                    f"{op}: features must be those of the method's source in phase {phase}, "
                    f"{source}, got {', '.join(wrong)}"
                )
        return features

    @property
    def trained(self) -> tuple[str, ...]:
        """Return the names of the networks that the phase trains."""
        return self.model.networks

    def build_optimizers(self) -> dict[str, Optimizer]:
        """Return the optimisers of the phase by name."""
        raise NotImplementedError

    def update(self, image: Tensor, hole: Tensor) -> dict[str, Tensor]:
        """Do one iteration on a checked batch and return the losses by name.

        Methods that take lines of the user's have them as a third argument, of the name that
        `InpaintingModel.hint_names` has: (N, 1, H, W) in the dtype of image, or None.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Set training and evaluation modes before a step."""
        self.model.train()

    def step(
        self,
        image: Tensor,
        hole: Tensor,
        *,
        sketch: Tensor | None = None,
        edges: Tensor | None = None,
        part: int = 0,
        parts: int = 1,
    ) -> dict[str, float]:
        """Do one iteration: every update of the phase, in the order of the source.

        A batch that is too large for the memory may come in several calls, equal parts of it.
        Gradients add up to their mean, and the last part moves the weights. Three things differ
        from a whole batch: in all parts the generator is judged by the critic from before the
        iteration, not by the updated one; batch normalisation sees parts; spectral norms advance
        with each of them.

        Pictures of any dtype are taken; networks run in that of their weights, or, in a step under
        ``torch.autocast``, by its rules. Losses are float32 (float64 for float64) in any case.

        Args:
            image: (N, 3, H, W) complete pictures, RGB in [0, 1], in the hole too: the losses
                compare the filling with what was there.
            hole: (N or 1, 1, H, W), 1 = missing.
            sketch: (N or 1, 1, H, W), bool or in [0, 1], 1 = line: lines of the whole pictures, for
                `DeepFillV2` with sketch=True. None: they are found.
            edges: the same for `EdgeConnect`.
            part: number of this part, from 0 on.
            parts: how many there are.

        Returns:
            The losses by name, as they were before the updates; of this part.

        Raises:
            ImportError: lines are to be found and scikit-image is not installed.
            TypeError, ValueError: wrong type, shape or range; lines that the method does not take;
                parts, in a phase that moves some weights several times a batch (`critic_steps`).
        """
        op = f"{self.model.name}.recipe"
        self._part, self._parts = part, parts
        self._descended.clear()
        checks.check_image(op, "image", image)
        if image.shape[1] != 3:
            raise ValueError(f"{op}: image must have 3 channels, got {tuple(image.shape)}")
        outside = ~((image >= 0) & (image <= 1))
        if outside.any():
            # A NaN that only the hole holds would reach the losses, and through them all weights.
            bad = image[outside].flatten()[0].item()
            raise ValueError(f"{op}: image must be in [0, 1], in the hole too, got {bad}")
        size = (image.shape[2], image.shape[3])
        checks.check_mask(op, "hole", hole, image.shape[0], size, image.device)
        image = image.to(self.model.dtype)
        names = self.model.hint_names
        given = lines.given(op, names, image, sketch=sketch, edges=edges)
        missing = checks.binary(op, "hole", hole).to(image.dtype)
        if self.model.channel_order == "bgr":
            image = image.flip(1)
        self.prepare()
        update: Callable[..., dict[str, Tensor]] = self.update
        losses = update(
            pictures.arranged(image),
            missing.expand(image.shape[0], 1, *size),
            *(() if given is None else (given,)),
        )
        self.iteration += part == parts - 1
        return {name: float(value.detach()) for name, value in losses.items()}

    @ends_graph
    def descend(self, names: str | Sequence[str], loss: Tensor) -> None:
        """Do one step of optimisers on a loss.

        Compiled code ends a graph here: it has a compiled backward pass, and optimisers are
        outside. The backward pass runs without autocast: its operators take the dtypes of the
        forward pass. With a `scaler` the loss is scaled, and gradients that are not finite skip
        the step.

        Args:
            names: of the optimisers, one or several.
            loss: a scalar.
        """
        named = (names,) if isinstance(names, str) else tuple(names)
        chosen = [self.optimizers[name] for name in named]
        if self._parts > 1:
            loss = self._shared(named, loss)
        if self._part == 0:
            for optimizer in chosen:
                optimizer.zero_grad(set_to_none=True)
        with torch.autocast(loss.device.type, enabled=False):
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if self._part < self._parts - 1:
            return
        for optimizer in chosen:
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()
        # Autocast keeps weights that it has rounded until it ends; these have changed.
        torch.clear_autocast_cache()

    def _shared(self, names: Sequence[str], loss: Tensor) -> Tensor:
        """Return a part's share of a loss; ValueError if its optimisers descend once more."""
        again = self._descended.intersection(names)
        if again:
            raise ValueError(
                f"{self.model.name}.recipe: a batch must come as a whole in phase "
                f"{self.phase.name}, which moves {', '.join(sorted(again))} several times a batch "
                f"(critic_steps), got {self._parts} parts"
            )
        self._descended.update(names)
        return loss / self._parts

    def draw(self, *shape: int) -> Tensor:
        """Draw uniform numbers in [0, 1) from the recipe's own generator."""
        return torch.rand(shape, generator=self.random, dtype=torch.float32)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a continued run needs beside the weights."""
        return {
            "phase": self.phase.name,
            "iteration": self.iteration,
            "random": self.random.get_state(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "scaler": {} if self.scaler is None else self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the result of `state_dict`.

        Raises:
            ValueError: it is another phase's, or optimisers are missing.
        """
        op = f"{self.model.name}.recipe"
        if state["phase"] != self.phase.name:
            raise ValueError(f"{op}: state must be of {self.phase.name}, got {state['phase']}")
        if set(state["optimizers"]) != set(self.optimizers):
            raise ValueError(
                f"{op}: state must hold optimisers {sorted(self.optimizers)}, "
                f"got {sorted(state['optimizers'])}"
            )
        self.iteration = int(state["iteration"])
        self.random.set_state(state["random"])
        for name, one in self.optimizers.items():
            one.load_state_dict(state["optimizers"][name])
        if self.scaler is not None and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])


def _zeros(names: Sequence[str]) -> str:
    return " and ".join(f"{name}=0" for name in names)


def _with_wrapped(model: Any, names: Iterable[str], wrap: Wrap) -> Any:
    """Return a copy of a model that shares all with it but the networks of those names."""
    view = copy.copy(model)
    view._modules = dict(model._modules)
    for name in names:
        wrapped = wrap(model.get_submodule(name))
        if not isinstance(wrapped, nn.Module):
            raise TypeError(
                f"{model.name}.recipe: wrap must return an nn.Module, got {type(wrapped).__name__}"
            )
        setattr(view, name, wrapped)
    return view


@contextmanager
def without_gradients(*modules: nn.Module) -> Iterator[None]:
    """Take no gradients of these modules' parameters inside a ``with`` block.

    Gradients still pass through the modules to their inputs. The backward pass belongs into the
    block: FSDP looks there again which parameters take gradients.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@ends_graph
def cut_off(x: Tensor) -> Tensor:
    """Return a prediction without its gradient, for the critic.

    Compiled code ends a graph here. The critic's backward pass frees what its graph keeps, which
    would be the generator's too.
    """
    return x.detach()


def adam(
    parameters: Iterable[nn.Parameter], rate: float, betas: tuple[float, float] = (0.9, 0.999)
) -> Optimizer:
    """Return Adam over those parameters that take gradients, in one pass over each where it can.

    Adam's formulas one after the other take 4 to 9 times as long: Context Encoder's 74 million
    weights 0.42 s on one Zen 4 core, more than the networks' forward and backward pass.
    """
    chosen = [p for p in parameters if p.requires_grad]
    ready = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in chosen)
    return torch.optim.Adam(chosen, lr=rate, betas=betas, fused=ready or None)
