"""FastestDet (BSD-3-Clause), a foreign detector with published weights, written for the tests alone.

The modules carry the names of the published state dict; https://github.com/dog-qiuqiu/FastestDet.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from rewards.detection.detect import Detection, Detector, canonical, inside

SIDE = 352
CHANNELS = (24, 48, 96, 192)
REPEATS = (4, 8, 4)
WEIGHTS = "weight_AP05_0.253207_280-epoch.pth"


def conv(taken: int, out: int, size: int = 1, stride: int = 1, *, depthwise: bool = False) -> list[nn.Module]:
    groups = taken if depthwise else 1
    layer = nn.Conv2d(taken, out, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(out)]


def deep(width: int, times: int) -> nn.Sequential:
    """Depthwise 5x5 convolutions with ReLU, one after the other."""
    layers: list[nn.Module] = []
    for _ in range(times):
        layers += [*conv(width, width, 5, depthwise=True), nn.ReLU()]
    return nn.Sequential(*layers)


class Shuffle(nn.Module):
    """A ShuffleNet v2 unit: of stride 2 both branches work, of stride 1 half the channels pass through."""

    def __init__(self, taken: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        self.stride = stride
        taken = taken if stride == 2 else taken // 2
        self.branch_main = nn.Sequential(
            *conv(taken, half),
            nn.ReLU(),
            *conv(half, half, 3, stride, depthwise=True),
            *conv(half, out - taken),
            nn.ReLU(),
        )
        if stride == 2:
            self.branch_proj = nn.Sequential(
                *conv(taken, taken, 3, 2, depthwise=True), *conv(taken, taken), nn.ReLU()
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return torch.cat([self.branch_proj(x), self.branch_main(x)], 1)
        return torch.cat([x[:, 0::2], self.branch_main(x[:, 1::2])], 1)


def stage(number: int) -> nn.Sequential:
    before, out = CHANNELS[number - 1], CHANNELS[number]
    return nn.Sequential(
        Shuffle(before, out, 2), *(Shuffle(out, out, 1) for _ in range(REPEATS[number - 1] - 1))
    )


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*conv(3, CHANNELS[0], 3, 2), nn.ReLU())
        self.stage2, self.stage3, self.stage4 = stage(1), stage(2), stage(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.first_conv(x), 3, 2, 1)
        eighth = self.stage2(x)
        sixteenth = self.stage3(eighth)
        return eighth, sixteenth, self.stage4(sixteenth)


class Squeeze(nn.Module):
    def __init__(self, taken: int, out: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Sequential(*conv(taken, out), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1x1(x)


class Pyramid(nn.Module):
    def __init__(self, taken: int, out: int) -> None:
        super().__init__()
        self.Conv1x1 = Squeeze(taken, out)
        self.S1, self.S2, self.S3 = deep(out, 1), deep(out, 2), deep(out, 3)
        self.output = nn.Sequential(*conv(3 * out, out))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Conv1x1(x)
        return (x + self.output(torch.cat([self.S1(x), self.S2(x), self.S3(x)], 1))).relu()


class Head(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv5x5 = nn.Sequential(*conv(width, width, 5, depthwise=True), nn.ReLU(), *conv(width, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv5x5(x)


class Heads(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.conv1x1 = Squeeze(width, width)
        self.obj_layers, self.reg_layers = Head(width, 1), Head(width, 4)
        self.cls_layers = Head(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.conv1x1(x)
        return self.obj_layers(x).sigmoid(), self.reg_layers(x), self.cls_layers(x).softmax(1)


class Network(nn.Module):
    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.SPP = Pyramid(sum(CHANNELS[1:]), CHANNELS[2])
        self.detect_head = Heads(CHANNELS[2], classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        eighth, sixteenth, thirtysecond = self.backbone(x)
        grown = F.interpolate(thirtysecond, scale_factor=2, mode="nearest")
        shrunk = F.avg_pool2d(eighth, 3, 2, 1)
        return self.detect_head(self.SPP(torch.cat([shrunk, sixteenth, grown], 1)))


class FastestDet(Detector):
    """One box a cell of 22x22, on BGR squashed to 352x352; of boxes that overlap by 0.45 the best is kept."""

    def __init__(self, folder: Path, lowest: float = 0.25) -> None:
        super().__init__()
        names = (folder / "example/onnx-runtime/coco.names").read_text().split("\n")
        self.names = [canonical(name) for name in names if name]
        self.labels, self.lowest = frozenset(self.names), lowest
        self.network = Network(len(self.names))
        state = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state, strict=True)
        self.eval()

    def detect(self, images: Tensor) -> list[list[Detection]]:
        height, width = images.shape[-2:]
        square = F.interpolate(images.flip(1), (SIDE, SIDE), mode="bilinear", align_corners=False)
        certain, place, classes = self.network(square)
        score, label = classes.max(1)
        score = (certain[:, 0] * score).flatten(1)
        rows, columns = certain.shape[-2:]
        across = (place[:, 0].tanh() + torch.arange(columns)) / columns * width
        down = (place[:, 1].tanh() + torch.arange(rows)[:, None]) / rows * height
        half_w, half_h = place[:, 2].sigmoid() * width / 2, place[:, 3].sigmoid() * height / 2
        corners = [across - half_w, down - half_h, across + half_w, down + half_h]
        boxes = torch.stack(corners, -1).flatten(1, 2)
        return [self._kept(*row, (height, width)) for row in zip(boxes, score, label.flatten(1), strict=True)]

    def _kept(self, boxes: Tensor, score: Tensor, label: Tensor, size: tuple[int, int]) -> list[Detection]:
        sure = score > self.lowest
        boxes, score, label = boxes[sure], score[sure], label[sure]
        return [
            Detection(self.names[int(label[i])], float(score[i]), inside(boxes[i].tolist(), size))
            for i in batched_nms(boxes, score, label, 0.45)
        ]
