"""Networks by name: the paper's models, CIFAR-style ResNets and their RLA forms."""
