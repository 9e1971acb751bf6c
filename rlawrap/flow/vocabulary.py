"""The words that operations are known by: functions, methods and modules of torch, and the classes
of other libraries that only their name tells apart."""

from __future__ import annotations

import operator

import torch
from torch import nn

from rlawrap._torch import ConvNd, DropoutNd, NormBase

ADDS = frozenset({operator.add, operator.iadd, torch.add})
ADD_METHODS = frozenset("add add_ __add__ __iadd__".split())
#: Sums of two tensors by weights.
WEIGHTED_SUMS = frozenset("lerp lerp_ addcmul addcmul_".split())
MULS = frozenset({operator.mul, operator.imul, torch.mul})
MUL_METHODS = frozenset("mul mul_ __mul__".split())
CATS = frozenset({torch.cat, torch.concat, torch.concatenate, torch.stack})
SPLITS = frozenset("chunk split narrow tensor_split unbind split_with_sizes".split())

ACTIVATIONS = frozenset(
    "relu relu_ relu6 gelu silu silu_ swish hardswish hardswish_ hardsigmoid elu elu_ selu selu_ "
    "celu celu_ leaky_relu leaky_relu_ prelu rrelu rrelu_ mish softplus softsign hardtanh "
    "hardtanh_ tanh tanh_ sigmoid sigmoid_ logsigmoid threshold threshold_ clamp clamp_ "
    "clamp_min clamp_min_ hardshrink softshrink tanhshrink".split()
)
SQUASHES = frozenset("sigmoid sigmoid_ hardsigmoid softmax".split())
NORMS = frozenset(
    "batch_norm group_norm layer_norm instance_norm local_response_norm rms_norm".split()
)
POOLS = frozenset(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d".split()
)
DROPOUTS = frozenset(
    "dropout dropout_ dropout1d dropout2d dropout3d alpha_dropout alpha_dropout_ feature_dropout "
    "feature_dropout_ feature_alpha_dropout stochastic_depth drop_path drop_block2d "
    "drop_block3d".split()
)
IDENTITIES = frozenset(
    "contiguous to clone float double half bfloat16 type type_as cpu cuda".split()
)
PRODUCTS = frozenset("mul mul_ imul multiply div div_ truediv itruediv true_divide".split())

#: What keeps a chain of convolutions linear, beside convolutions, norms, dropout, identities,
#: additions, concatenations and products with what is no data.
LINEAR = frozenset(
    "sub sub_ isub subtract rsub neg neg_ pad interpolate upsample upsample_bilinear "
    "upsample_nearest pixel_shuffle pixel_unshuffle channel_shuffle roll flip repeat "
    "repeat_interleave getitem select reshape view flatten unflatten permute transpose "
    "transpose_ swapaxes movedim moveaxis squeeze unsqueeze squeeze_ unsqueeze_ expand "
    "expand_as view_as reshape_as half double type".split()
)

NORM_MODULES = (NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
SQUASH_MODULES = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.Softmax2d)
POOL_MODULES = (
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.LPPool1d, nn.LPPool2d,
)  # fmt: skip
#: Modules that pad, and the mode of `torch.nn.functional.pad` that each is.
PAD_MODES: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d), "constant"),
    ((nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d), "constant"),
    ((nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d), "reflect"),
    ((nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d), "replicate"),
    ((nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d), "circular"),
)
LINEAR_MODULES = (
    *(cls for classes, _ in PAD_MODES for cls in classes), nn.Flatten, nn.Unflatten, nn.Upsample,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle,
)  # fmt: skip

#: Classes of any package that drop values or branches; there is no base class to know them by.
_DROPS = frozenset(
    "DropPath DropPath2d DropBlock DropBlock1d DropBlock2d DropBlock3d DropConnect DropChannel "
    "DropChannels DropKey DropLayer DropResidual StochasticDepth".split()
)


def is_dropout(cls: type) -> bool:
    """Whether a module class drops values or whole branches, and does nothing in eval mode."""
    return issubclass(cls, DropoutNd) or any(base.__name__ in _DROPS for base in cls.__mro__)


def is_norm(cls: type) -> bool:
    """Whether a module class normalises: torch's own, and of others what is called a norm."""
    return issubclass(cls, NORM_MODULES) or any("Norm" in base.__name__ for base in cls.__mro__)


def is_convolution(module: nn.Module) -> bool:
    """Whether a module is an elementary convolution or linear layer."""
    return isinstance(module, (ConvNd, nn.Linear))


def holds_convolution(module: nn.Module) -> bool:
    """Whether a module is, or holds, a convolution or linear layer."""
    return any(map(is_convolution, module.modules()))


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an elementwise nonlinearity."""
    if type(module).__module__ == "torch.nn.modules.activation":
        return not isinstance(
            module, (nn.MultiheadAttention, nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU)
        )
    return isinstance(
        module, (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh)
    )
