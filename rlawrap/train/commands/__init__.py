"""The commands of the trainer; `rlawrap.cli` lists them."""
