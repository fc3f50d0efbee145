"""The training step and the evaluation of one lane as pure functions, and the context that its model computes in.

The functions are written for one lane; `pack` and `looped` give them a slot axis (torch.vmap) and compile them. Every
tensor in a lane's `floats`, `keys` and state may therefore differ between the lanes of a pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.utils import _pytree as pytree

import arith_models.base
import tasks.base
from arith_models.base import Memory, Network, Observation, Penalties, Scalar
from sweeps.training.lane import SPARSITY_ERROR
from sweeps.training.optimizers import OPTIMIZERS, Params, add_noise, annealed_variance, clip_norm, clip_value, single
from sweeps.training.random import Stream
from sweeps.training.settings import Built, Train, replaced, with_floats
from sweeps.training.state import LOSS_NOT_FINITE, MOMENT_NOT_FINITE, RUNNING, WEIGHT_NOT_FINITE, LaneState
from tasks.base import Task

PURPOSES = ("batch", "model", "noise")
"""Streams of random numbers that a step draws from; each has its own key in every lane."""
MEAN_LOSS_DECAY = 0.9
Observed = dict[str, Any]
"""What one step adds to an `Observation`, detached: `loss`, `penalties`, `noted`, `mean_loss` (the new running mean),
`scores` where the network has a memory, and `length` where it has a curriculum."""
Result = TypeVar("Result")


class Context:
    """What a model is given besides its input, see `arith_models.base.Context`."""

    def __init__(
        self,
        step: Tensor,
        training: bool,
        stream: Stream,
        last_error: Tensor,
        memory: Memory | None = None,
    ) -> None:
        self.step, self.training, self.stream, self.last_error = step, training, stream, last_error
        self.memory: Memory = memory or {}

    @classmethod
    def of_evaluation(cls, device: torch.device, memory: Memory | None = None) -> Context:
        """The context of an evaluation: there is no step, and nothing is drawn."""
        nothing = torch.zeros((), device=device)
        return cls(nothing, False, Stream((0, 0), device=device), nothing, memory)

    def part(self, number: int | Tensor) -> Context:
        """The context of one of several parts of a computation, by its number from 0: what it draws is its own."""
        return Context(self.step, self.training, self.stream.folded(number), self.last_error, self.memory)

    def dropout(self, x: Tensor, rate: Scalar) -> Tensor:
        """Inverted dropout with a lane's own rate in [0, 1); the identity in an evaluation."""
        if not self.training:
            return x
        kept = self.stream.uniform(x.shape) >= rate
        return torch.where(kept, x / (1.0 - rate), torch.zeros_like(x))


if TYPE_CHECKING:  # mypy compares the engine's classes with the protocols that models and tasks are written against

    def _contracts(
        context: Context, stream: Stream
    ) -> tuple[arith_models.base.Context, arith_models.base.Stream, tasks.base.Stream]:
        return context, stream, stream


@dataclass(frozen=True)
class LaneFunctions:
    """The step and the evaluation for one structure. `floats` are a lane's float settings by dotted path."""

    built: Built
    zero_floats: frozenset[str]
    """Paths of floats that are 0 in every lane: plain numbers in the step, so that their terms vanish."""

    def step(
        self, state: LaneState, floats: Params, keys: Params, budget: Tensor, instance: Params, shared: Params
    ) -> LaneState:
        """Draw a batch, differentiate, update. A finished or failed lane stays as it is."""
        ctx = self.context(state, keys)
        x_BI, target_BO = self.sample(state, floats, keys, {**instance, **shared})

        def loss(params: Params) -> Any:
            y_BO, penalties = functional_call(self.model(floats), params, (x_BI, ctx))
            total, observed = self.total(state, floats, y_BO, target_BO, penalties)
            return total, (total, pytree.tree_map(torch.detach, observed))

        grads, (value, observed) = grad(loss, has_aux=True)(state["params"])
        return self.update(state, grads, value, observed, floats, keys, budget)

    def context(self, state: LaneState, keys: Params) -> Context:
        """Return the model's context at this step of training."""
        step = state["step"]
        stream = _stream(keys, "model", step)
        memory = state["memory"].get("model", {})
        return Context(step.to(torch.float32), True, stream, state["last_error"], memory)

    def sample(self, state: LaneState, floats: Params, keys: Params, data: Params) -> Any:
        """Return the batch of this step; `data` is the task's `instance` and `shared`."""
        stream = _stream(keys, "batch", state["step"])
        return self._task(floats).sample(stream, data, self.built.train.batch)

    def length(self, state: LaneState, floats: Params, keys: Params) -> Tensor:
        """Return the length of the next batch by the network's curriculum: one that the task has examples of, int64."""
        lengths = self.built.task.lengths
        stream = _stream(keys, "batch", state["step"]).child("length")
        memory = state["memory"]["model"]
        longest = self.model(floats).next_length(memory, stream, lengths[0], lengths[-1])
        available = torch.tensor(lengths, device=longest.device)
        return available[((available <= longest).sum() - 1).clamp(min=0).unsqueeze(0)].squeeze(0)

    def sample_length(self, length: Tensor, bin_: int, state: LaneState, floats: Params, keys: Params, data: Params) -> Any:
        """Return a batch of one length, in the bin of that length."""
        stream = _stream(keys, "batch", state["step"])
        return self._task(floats).sample_exact(stream, data, self.built.train.batch, bin_, length)

    def total(self, state: LaneState, floats: Params, y: Any, target: Any, penalties: Penalties) -> tuple[Tensor, Observed]:
        """Return the task's loss and the penalties as one number, and what was observed on the way, not yet detached."""
        task = self._task(floats)
        loss = task.loss(y, target)
        terms, mean_loss = dict(penalties), state["mean_loss"]
        noted: Any = terms.pop("observed", {})
        if "score" in terms:
            terms["score"], mean_loss = _reinforced(loss.detach(), mean_loss, state["step"], terms["score"])
        observed = {"loss": loss, "penalties": terms, "mean_loss": mean_loss, "noted": noted}
        if "model" in state["memory"] and task.score_names:
            observed["scores"] = task.scores("train", y, target)
        # Neither `loss + 0` nor a detached copy of the result: from two outputs that the compiler finds equal, torch (2.13)
        # makes one, and if one is detached, no gradient flows to either.
        return loss + sum(terms.values()) if terms else loss, observed

    def update(
        self, state: LaneState, grads: Params, loss: Tensor, observed: Observed,
        floats: Params, keys: Params, budget: Tensor,
    ) -> LaneState:  # fmt: skip
        """Return the next state: gradients clipped, noise added, weights moved and constrained, the memory updated."""
        model, step, memory = self.model(floats), state["step"], state["memory"]
        of_model = memory.get("model", {})
        train: Train = with_floats(self.built.train, self._filled(floats), "train")
        if "lr" in memory:
            train = replaced(train, lr=train.lr * memory["lr"]["factor"])
        factor = model.lr_factor(of_model)
        if factor is not None:
            train = replaced(train, lr=train.lr * factor)

        grads = clip_value(clip_norm(grads, train.clip_norm), train.clip_value)
        stream = _stream(keys, "noise", step)
        variance = annealed_variance(train.gradient_noise, step)
        deviation = model.noise_deviation(step, of_model, single(train.lr))
        if deviation is not None:
            variance = variance + deviation.square()
        grads = add_noise(grads, variance, stream)

        optimizer = OPTIMIZERS[train.optimizer]
        settings = {name: getattr(train, name) for name in optimizer.settings}
        params, moments = optimizer.update(state["params"], grads, state["moments"], step, **settings)

        memory = dict(memory)
        if "lr" in memory:
            memory["lr"] = train.lr_decay.remember(memory["lr"], observed["loss"], step)
        if "model" in memory:
            observed = {**observed, "lr": single(train.lr)}
            if self.built.network.has_curriculum:
                observed["shortest"] = self.built.task.lengths[0]
            memory["model"] = model.remember(of_model, cast(Observation, observed), step)

        params = {name: p.clone() for name, p in params.items()}
        with torch.no_grad():
            with_params(model, params, lambda model: model.constrain())
            with_params(model, params, lambda model: model.settle(memory.get("model", {})))
        guarded = [p for moment in optimizer.guarded for p in moments[moment].values()]
        return _advanced(state, params, moments, guarded, loss, observed["mean_loss"], memory, budget)

    def evaluate(
        self, params: Params, memory: Any, floats: Params, inputs: Params, targets: Params, shared: Params
    ) -> dict[str, Tensor]:
        """Return the error and the task's scores of each split, and the sparsity error."""
        model = self.model(floats)
        ctx = Context.of_evaluation(next(iter(params.values())).device, memory.get("model", {}))
        result: dict[str, Tensor] = {}
        for split, of_split in inputs.items():
            x_BI = self.built.task.present(of_split, shared)
            y_BO, _ = functional_call(model, params, (x_BI, ctx))
            result |= self.errors(split, floats, y_BO, targets[split])
        result[SPARSITY_ERROR] = self.sparsity_error(params, floats)
        return result

    def errors(self, split: str, floats: Params, y: Any, target: Any) -> dict[str, Tensor]:
        """Return `error.<split>` and `<score>.<split>` of the task."""
        task = self._task(floats)
        scores = task.scores(split, y, target)
        return {f"error.{split}": task.error(y, target)} | {f"{n}.{split}": s for n, s in scores.items()}

    def sparsity_error(self, params: Params, floats: Params) -> Tensor:
        """Return max over the effective weights of min(|w|, |1 - |w||); NaN where a model has no such weights."""
        found = sparsity_error(with_params(self.model(floats), params, lambda model: model.effective_weights()))
        return torch.full((), torch.nan, device=next(iter(params.values())).device) if found is None else found

    def model(self, floats: Params) -> Network:
        """Return a module whose configs hold the lane's floats. It has no storage: its parameters are passed in."""
        filled = self._filled(floats)
        units = tuple(with_floats(c, filled, f"model.units.{i}") for i, (_, c) in enumerate(self.built.units))
        with torch.device("meta"):
            return self.built.model(with_floats(self.built.network_config, filled, "model"), units)

    def _task(self, floats: Params) -> Task:
        task = self.built.task
        return type(task)(with_floats(task.config, self._filled(floats), "task", except_for=task.evaluation_only))

    def _filled(self, floats: Mapping[str, Any]) -> dict[str, Any]:
        return {**floats, **dict.fromkeys(self.zero_floats, 0.0)}


def sparsity_error(weights: Sequence[Tensor]) -> Tensor | None:
    """Return max over effective weights of min(|w|, |1 - |w||), 0-dim; None without weights."""
    distances = [torch.minimum(w.abs(), (1.0 - w.abs()).abs()).amax() for w in weights]
    return torch.stack(distances).amax() if distances else None


def with_params(model: nn.Module, params: Params, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return function(model, *arguments) with `params` in place of the model's parameters.

    As torch.func.functional_call, for any method; one that changes parameters in place changes `params`.
    """
    found: Result = functional_call(_Calling(model, function), {f"model.{name}": p for name, p in params.items()}, arguments)
    return found


class _Calling(nn.Module):
    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self._function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self._function(self.model, *arguments)


def _stream(keys: Params, purpose: str, step: Tensor) -> Stream:
    return Stream((keys[purpose][0], keys[purpose][1]), step.to(torch.int32), step.device)


def _reinforced(loss: Tensor, mean_loss: Tensor, step: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """REINFORCE for weights that are drawn: `score` is the log-probability of the draw. Its gradient is that of
    (loss - baseline) score, the baseline being the running mean of the losses before this one (the first is its own).
    """
    before = step.to(torch.float32)
    baseline = torch.where(before > 0, mean_loss / (1.0 - MEAN_LOSS_DECAY ** before.clamp(min=1.0)), loss)
    surrogate = (loss - baseline) * score
    return surrogate - surrogate.detach(), MEAN_LOSS_DECAY * mean_loss + (1.0 - MEAN_LOSS_DECAY) * loss


def _advanced(
    state: LaneState,
    params: Params,
    moments: Any,
    guarded: Sequence[Tensor],
    loss: Tensor,
    mean_loss: Tensor,
    memory: Any,
    budget: Tensor,
) -> LaneState:
    """The new state, or the old one where the lane is done, has failed, or fails now: the last finite weights stay.

    `guarded` are moments that have to be finite, as the weights have to.
    """
    weights_finite = _all_finite(list(params.values()))
    moments_finite = _all_finite(guarded) if guarded else torch.ones_like(weights_finite)
    running = (state["status"] == RUNNING) & (state["step"] < budget)
    good = running & torch.isfinite(loss) & weights_finite & moments_finite
    failed = torch.where(weights_finite, MOMENT_NOT_FINITE, WEIGHT_NOT_FINITE)
    failed = torch.where(torch.isfinite(loss), failed, LOSS_NOT_FINITE)

    def pick(new: Any, old: Any) -> Any:
        if isinstance(new, dict):
            return {key: pick(new[key], old[key]) for key in old}  # in the order of the state
        return torch.where(good, new, old)

    return {
        **state,
        "params": pick(params, state["params"]),
        "moments": pick(moments, state["moments"]),
        "mean_loss": pick(mean_loss, state["mean_loss"]),
        "memory": pick(memory, state["memory"]),
        "step": state["step"] + good.to(torch.int64),
        "status": torch.where(running & ~good, failed, state["status"]),
    }


def _all_finite(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([torch.isfinite(t).all() for t in tensors]).all()
