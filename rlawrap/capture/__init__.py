"""nn.Module -> Trace: what runs, where, at which sizes, in which mode."""
