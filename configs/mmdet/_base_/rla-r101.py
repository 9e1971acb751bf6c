# RLA-ResNet-101 in the place of ResNet, from the official ImageNet checkpoint.
custom_imports = dict(imports="rlawrap.integrations.mmdet")
rla_backbone = dict(
    type="RLAResNet",
    depth=101,
    rla_channel=32,
    attention=None,
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/rla_resnet101.pth"),
)
