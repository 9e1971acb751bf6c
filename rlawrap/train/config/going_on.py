"""Which fields of a `TrainConfig` may differ when a run goes on."""

from __future__ import annotations

# Fields that may differ between a run and its continuation: they do not touch the numbers.
FREE_ON_RESUME = frozenset(
    {
        "output",
        "resume",
        "change",
        "workers",
        "prefetch",
        "log_every",
        "save_every",
        "save_minutes",
        "keep",
        "tensorboard",
        "profile",
        "progress",
        "allow_changed_data",
        "timeout",
        "data_root",
        "on_bad_image",
        "imports",
    }
)


# Fields that a run may go on with another value of, when asked to: with them its weights and its
# optimiser's state stay of use.
CHANGEABLE = frozenset(
    {
        "arch", "epochs", "batch_size", "accumulate", "drop_last", "repeats", "augment",
        "scene_augment",
        "lr", "momentum", "nesterov", "weight_decay", "rla_lr", "clip", "label_smoothing",
        "opt_args", "schedule", "gamma", "step_epochs", "milestones", "warmup_epochs",
        "warmup_steps", "warmup_start", "device", "channels_last", "compile", "compile_mode",
        "tf32", "grad_checkpointing", "deterministic", "ema_every", "monitor", "patience",
    }
)  # fmt: skip

# Changes after which a step of an epoch holds other images than before.
CHANGES_STEPS = frozenset({"batch_size", "drop_last", "repeats"})
