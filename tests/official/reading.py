"""An independent reading of the equations, in plain PyTorch: no graph, no split, no plan.

Everything is a function of a dict of tensors under the official keys, and is written from the
paper: y = F(Concat[x, h]), x' = act(y + shortcut(x)), h' by the variant's equation. Running
statistics are updated in the dict, as training does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def norm(s: State, key: str, x: Tensor, train: bool) -> Tensor:
    if train:
        s[f"{key}.num_batches_tracked"].add_(1)
    mean, var = s[f"{key}.running_mean"], s[f"{key}.running_var"]
    return F.batch_norm(x, mean, var, s[f"{key}.weight"], s[f"{key}.bias"], train)


def gate(s: State, place: str, y: Tensor) -> Tensor:
    """ECA or SE, if the block has one."""
    means = y.mean((2, 3))
    if f"{place}.eca.conv.weight" in s:
        w = s[f"{place}.eca.conv.weight"]
        a = F.conv1d(means[:, None], w, padding=w.shape[-1] // 2)[:, 0]
    elif f"{place}.se.fc.0.weight" in s:
        a = F.relu(means @ s[f"{place}.se.fc.0.weight"].T) @ s[f"{place}.se.fc.2.weight"].T
    else:
        return y
    return y * torch.sigmoid(a)[:, :, None, None]


def update(s: State, n: int, m: int, variant: str, source: Tensor, h: Tensor, c: Tensor):  # type: ignore[no-untyped-def]
    """h (and c of the LSTM) after block m of stage n."""
    unshared = variant == "rlaus"
    place = f"stages.{n}.{m}"
    conv_out = f"{place}.conv_out.weight" if unshared else f"conv_outs.{n}.weight"
    bn = f"{place}.bn_rla" if unshared else f"stage_bns.{n}.{m}"
    cell = f"{place}.recurrent_conv" if unshared else f"recurrent_convs.{n}"
    u = F.conv2d(source, s[conv_out])
    k = u.shape[1]

    def bn_t(x: Tensor) -> Tensor:
        return norm(s, bn, x, True)

    if variant == "rlalstm":
        gates = F.conv2d(torch.cat([bn_t(u).tanh(), h], 1), s[f"{cell}.conv.weight"], padding=1)
        i, f, o, g = gates.split(k, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if variant == "rlagru":

        def group_norm(name: str, x: Tensor) -> Tensor:
            name = f"{cell}.{name}"
            return F.group_norm(x, 1, s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)

        def conv(name: str, x: Tensor) -> Tensor:
            name = f"{cell}.{name}"
            return F.conv2d(x, s[f"{name}.weight"], s[f"{name}.bias"], padding=1)

        u = bn_t(u).tanh()
        r, z = conv("gate_conv", torch.cat([u, h], 1)).split(k, 1)
        r, z = (
            group_norm("reset_gate_norm", r).sigmoid(),
            group_norm("update_gate_norm", z).sigmoid(),
        )
        new = group_norm("output_norm", conv("output_conv", torch.cat([u, r * h], 1)))
        return z * h + (1 - z) * new.tanh(), c
    w = s[f"{cell}.weight"]
    if variant == "rlav1p":
        return bn_t(F.conv2d(u + h, w, padding=1)).tanh(), c
    if variant in ("rlav2", "rlav4", "rlav6"):
        return u + F.conv2d(bn_t(h).tanh(), w, padding=1), c
    return F.conv2d(bn_t(u + h).tanh(), w, padding=1), c


def resnet(s: State, x: Tensor, variant: str, k: int, blocks: list[int], groups: int = 1) -> Tensor:
    """Logits of an RLA-ResNet in train mode, as released: y^t stands for x^t unless unshared."""
    x = F.relu(norm(s, "bn1", F.conv2d(x, s["conv1.weight"], stride=2, padding=3), True))
    x = F.max_pool2d(x, 3, 2, 1)
    h = c = x.new_zeros(len(x), k, *x.shape[2:])
    for n, count in enumerate(blocks):
        for m in range(count):
            p, stride = f"stages.{n}.{m}", 2 if n and not m else 1
            y = x if variant == "rlarh" else torch.cat([x, h], 1)
            y = F.relu(norm(s, f"{p}.bn1", F.conv2d(y, s[f"{p}.conv1.weight"]), True))
            y = F.conv2d(y, s[f"{p}.conv2.weight"], stride=stride, padding=1, groups=groups)
            y = F.conv2d(F.relu(norm(s, f"{p}.bn2", y, True)), s[f"{p}.conv3.weight"])
            y = gate(s, p, norm(s, f"{p}.bn3", y, True))
            shortcut = x
            if f"{p}.downsample.0.weight" in s:
                shortcut = F.conv2d(x, s[f"{p}.downsample.0.weight"], stride=stride)
                shortcut = norm(s, f"{p}.downsample.1", shortcut, True)
            x = F.relu(y + shortcut)
            if stride == 2:
                h, c = F.avg_pool2d(h, 2), F.avg_pool2d(c, 2)
            source = {"rlaus": y, "rlav5": shortcut, "rlav6": shortcut}.get(variant, x)
            h, c = update(s, n, m, variant, source, h, c)
    if variant == "rlav1":
        h = norm(s, "bn2", h, True).tanh()
    elif variant not in ("rlav1p", "rlalstm", "rlagru"):
        h = F.relu(norm(s, "bn2", h, True))
    return F.linear(torch.cat([x, h], 1).mean((2, 3)), s["fc.weight"], s["fc.bias"])


def mobilenet(s: State, x: Tensor, k: int, rows: list[tuple[int, int]]) -> Tensor:
    """Logits of an RLA-MobileNetV2 in train mode, without dropout; rows: blocks and stride."""
    cell = "recurrent_dsconvs.0" if "recurrent_dsconvs.0.weight" in s else "recurrent_convs.0"
    w = s[f"{cell}.weight"]
    x = F.conv2d(x, s["conv1.0.weight"], stride=2, padding=1)
    x = F.relu6(norm(s, "conv1.1", x, True))
    h = x.new_zeros(len(x), k, *x.shape[2:])
    for n, (count, row_stride) in enumerate(rows):
        for m in range(count):
            p, stride = f"stages.{n}.{m}", 1 if m else row_stride
            y = x
            if f"{p}.conv1x1.0.weight" in s:
                y = norm(s, f"{p}.conv1x1.1", F.conv2d(x, s[f"{p}.conv1x1.0.weight"]), True)
                y = F.relu6(y)
            y, wide = torch.cat([y, h], 1), s[f"{p}.conv.0.0.weight"]
            y = F.conv2d(y, wide, stride=stride, padding=1, groups=len(wide))
            y = F.conv2d(F.relu6(norm(s, f"{p}.conv.0.1", y, True)), s[f"{p}.conv.1.weight"])
            y = norm(s, f"{p}.conv.2", y, True)
            if f"{p}.conv.3.conv.weight" in s:
                y = gate({f"{p}.eca.conv.weight": s[f"{p}.conv.3.conv.weight"]}, p, y)
            x = x + y if stride == 1 and x.shape == y.shape else y
            if stride == 2:
                h = F.avg_pool2d(h, 2)
            u = norm(s, f"stage_bns.{n}.{m}", F.conv2d(y, s[f"conv_outs.{n}.weight"]) + h, True)
            h = F.conv2d(u.tanh(), w, padding=1, groups=k // w.shape[1])
    h = F.relu6(norm(s, "bn2", h, True))
    x = F.conv2d(torch.cat([x, h], 1), s["conv2.0.weight"])
    x = F.relu6(norm(s, "conv2.1", x, True)).mean((2, 3))
    return F.linear(x, s["classifier.1.weight"], s["classifier.1.bias"])
