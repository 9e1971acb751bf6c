"""Put a hidden state into a network of your own and train it in a loop of your own.

    python examples/apply_to_your_model.py

Nothing here needs rlawrap's trainer: `rlawrap.apply` takes a module and gives one back.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import rlawrap
from rlawrap.train.data import open_data


class Block(nn.Module):
    """A residual block as anyone might write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


class YourNet(nn.Module):
    """A small network: a stem, two blocks, a downsampling, two blocks, a classifier."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.stage1 = nn.Sequential(Block(16), Block(16))
        self.down = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.stage2 = nn.Sequential(Block(32), Block(32))
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage1(self.stem(x))
        x = self.stage2(self.down(x))
        return self.fc(x.mean((2, 3)))


def train_epoch(model: nn.Module, loader: DataLoader[tuple[Tensor, int]], lr: float) -> float:
    """One pass of SGD; returns the mean loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    model.train()
    losses = []
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader[tuple[Tensor, int]]) -> float:
    """Per cent right."""
    model.eval()
    right = [(model(images).argmax(1) == labels).float() for images, labels in loader]
    return 100 * float(torch.cat(right).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Apply RLA to a network of your own.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--subset", type=int, default=2000)
    arguments = parser.parse_args()
    torch.manual_seed(0)

    base = YourNet()
    print(rlawrap.inspect(base, example_input=torch.zeros(1, 1, 32, 32)), "\n")
    model = rlawrap.apply(base, k=8, example_input=torch.zeros(1, 1, 32, 32))

    # At first the hidden state changes nothing, so a trained base keeps what it knows.
    images = torch.randn(4, 1, 32, 32)
    difference = float((model.eval()(images) - base.eval()(images)).detach().abs().max())
    print(f"outputs differ from the base's by at most {difference:.1e}")
    extra = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in base.parameters())
    print(f"{extra:,} new parameters, all of them named rla.*\n")

    # __getitem__ always augments alike; the trainer draws anew in each epoch, by load().
    train_loader = DataLoader(open_data(subset=arguments.subset), batch_size=64, shuffle=True)
    test_loader = DataLoader(open_data(split="test"), batch_size=250)
    for epoch in range(arguments.epochs):
        loss = train_epoch(model, train_loader, lr=0.05)
        print(f"epoch {epoch + 1}: loss {loss:.3f}, top-1 {accuracy(model, test_loader):.1f} %")

    with rlawrap.disabled(model):
        print(f"with the hidden state switched off: {accuracy(model, test_loader):.1f} %")
    plain = rlawrap.unwrap(model)
    print(f"unwrapped: a {type(plain).__name__} again")


if __name__ == "__main__":
    main()
