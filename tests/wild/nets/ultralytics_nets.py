"""ultralytics (AGPL: a test dependency alone, of which nothing is copied)."""

from __future__ import annotations

from tests.wild.network import Wild, image, made, net


def _net(name: str, *blocks: str, kind: str = "DetectionModel") -> Wild:
    maker = made(f"ultralytics.nn.tasks.{kind}", f"{name}.yaml", verbose=False)
    return net(f"ultralytics/{name}", maker, image(1, 3, 64, 64), *blocks)


NETS = (
    _net("yolov3-tiny"),
    _net("yolov5n", "Bottleneck"),
    _net("yolov6n"),
    _net("yolov8n", "Bottleneck"),
    _net("yolov8n-seg", "Bottleneck", kind="SegmentationModel"),
    _net("yolov8n-cls", "Bottleneck", kind="ClassificationModel"),
    _net("yolov8n-pose", "Bottleneck", kind="PoseModel"),
    _net("yolov9t", "RepBottleneck"),
    _net("yolov10n"),
    _net("yolo11n"),
    _net("yolo11n-cls", kind="ClassificationModel"),
    _net("yolo12n"),
    _net("yolo26n"),
)
