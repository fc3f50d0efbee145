"""Dense layers with a bias and an activation: `linear`, the activations of Madsen and Johansen (2020), and torch's.

The units differ in their activation and in how W starts. Two sources:

- Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), whose code has its own initial range for each activation.
- Trask et al., "Neural Arithmetic Logic Units" (2018), section 1: public code for it compares more activations, each a
  `torch.nn.Linear` with torch's default initial values and the activation's default settings.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from arith_models.base import Context, NoSettings, Penalties, Stream, Unit


def xavier(num_inputs: int, num_outputs: int, gain: float = 1.0) -> float:
    """Return the half-width of Glorot and Bengio's uniform range."""
    return gain * math.sqrt(6 / (num_inputs + num_outputs))


def kaiming(num_inputs: int) -> float:
    """Return the half-width of He's uniform range for rectifiers."""
    return math.sqrt(6 / num_inputs)


class Dense(Unit):
    """y = activation(x Wᵀ + b). Abstract: a unit defines `activation` and `initial_range`.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O]. W ~ U(-r, r) with r from `initial_range`, b = 0, as in the
    authors' code for Madsen and Johansen (2020). The sparsity error is that of W.
    """

    version = 1

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.bias = nn.Parameter(torch.empty(num_outputs))

    @abstractmethod
    def activation(self, z: Tensor) -> Tensor:
        """Apply the activation to each element."""

    @abstractmethod
    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        """Return r of W ~ U(-r, r)."""

    def initialise(self, stream: Stream) -> None:
        num_outputs, num_inputs = self.weight.shape
        r = self.initial_range(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.bias.zero_()

    def initialise_as_torch(self, stream: Stream) -> None:
        """As torch.nn.Linear does: W and b ~ U(-r, r), r = 1 / sqrt(I)."""
        r = 1.0 / math.sqrt(self.weight.shape[1])
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.bias.copy_(stream.uniform(self.bias.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        return self.activation(self.weight @ x_BI.T + self.bias.unsqueeze(1)).T, {}


class XavierDense(Dense):
    """Abstract: W Xavier uniform with gain 1."""

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return xavier(num_inputs, num_outputs)


class KaimingDense(Dense):
    """Abstract: W Kaiming uniform."""

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return kaiming(num_inputs)


class TorchDense(Dense):
    """Abstract: W and b start as in torch.nn.Linear, because no paper has its own range for the unit."""

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return 1.0 / math.sqrt(num_inputs)

    def initialise(self, stream: Stream) -> None:
        self.initialise_as_torch(stream)


class Linear(XavierDense):
    """The linear layer: y = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Xavier uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return z


class Sigmoid(XavierDense):
    """The logistic sigmoid: y = 1 / (1 + exp(-z)), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Xavier uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return torch.sigmoid(z)


class Tanh(Dense):
    """The hyperbolic tangent: y = tanh(x Wᵀ + b).

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Xavier uniform with gain 5/3.
    """

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return xavier(num_inputs, num_outputs, gain=5 / 3)

    def activation(self, z: Tensor) -> Tensor:
        return torch.tanh(z)


class Softsign(XavierDense):
    """Softsign: y = z / (1 + |z|), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Xavier uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.softsign(z)


class ReLU(KaimingDense):
    """The rectified linear unit: y = max(0, x Wᵀ + b).

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Kaiming uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.relu(z)


class ReLU6(KaimingDense):
    """The rectified linear unit with an upper bound: y = clip(x Wᵀ + b, 0, 6).

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Kaiming uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.relu6(z)


class ELU(KaimingDense):
    """The exponential linear unit, alpha 1: y = max(z, 0) + exp(min(z, 0)) - 1, z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W Kaiming uniform.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.elu(z)


class SELU(Dense):
    """The scaled ELU: y = 1.0507 (max(z, 0) + 1.6733 (exp(min(z, 0)) - 1)), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    A baseline of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); W ~ U(-sqrt(3/I), sqrt(3/I)).
    """

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return math.sqrt(3 / num_inputs)

    def activation(self, z: Tensor) -> Tensor:
        return functional.selu(z)


class Hardtanh(TorchDense):
    """Hard tanh: y = clip(x Wᵀ + b, -1, 1).

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.hardtanh(z)


class Tanhshrink(TorchDense):
    """Tanhshrink: y = z - tanh(z), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.tanhshrink(z)


class Hardshrink(TorchDense):
    """Hard shrinkage: y = z where |z| > 1/2, else 0; z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.hardshrink(z, 0.5)


class Softshrink(TorchDense):
    """Soft shrinkage: y = sign(z) max(|z| - 1/2, 0), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.softshrink(z, 0.5)


class LeakyReLU(TorchDense):
    """The leaky rectified linear unit: y = max(z, z / 100), z = x Wᵀ + b.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.leaky_relu(z, 0.01)


class Softplus(TorchDense):
    """Softplus: y = log(1 + exp(x Wᵀ + b)).

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O].
    Public code for Trask et al. (2018), section 1; W and b as in torch.nn.Linear.
    """

    def activation(self, z: Tensor) -> Tensor:
        return functional.softplus(z)


class PReLU(TorchDense):
    """The parametric rectified linear unit: y = max(z, 0) + s min(z, 0), z = x Wᵀ + b, the slope s being learnt.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O], s [1]. Public code for Trask et al. (2018), section 1; W and b as in
    torch.nn.Linear. s starts at 1/4, one for each layer (the public code shares one among all layers).
    """

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.slope = nn.Parameter(torch.empty(1))

    def activation(self, z: Tensor) -> Tensor:
        return torch.where(z > 0, z, self.slope * z)

    def initialise_as_torch(self, stream: Stream) -> None:
        super().initialise_as_torch(stream)
        self.slope.fill_(0.25)


UNITS: dict[str, type[Unit]] = {
    "linear": Linear,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "softsign": Softsign,
    "relu": ReLU,
    "relu6": ReLU6,
    "elu": ELU,
    "selu": SELU,
    "hardtanh": Hardtanh,
    "tanhshrink": Tanhshrink,
    "hardshrink": Hardshrink,
    "softshrink": Softshrink,
    "leaky_relu": LeakyReLU,
    "prelu": PReLU,
    "softplus": Softplus,
}
