# RLA-ResNet-50 in the place of ResNet, from the official ImageNet checkpoint.
custom_imports = dict(imports="rlawrap.integrations.mmdet")
rla_backbone = dict(
    type="RLAResNet",
    depth=50,
    rla_channel=32,
    attention=None,
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/rla_resnet50.pth"),
)
