"""A feature pyramid over a backbone."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from spine_tasks.configs.detection import DiscFasterRcnn
from spine_tasks.errors import ConfigError
from spine_tasks.tasks.backbone import Backbone

BODY_STRIDES = (4, 8, 16, 32)  # px, of the backbone's maps
STRIDES = (*BODY_STRIDES, 64)  # of the pyramid's levels; the last is every other point of the map


class Pyramid(Backbone):
    """Levels of equal width over the feature maps of a backbone.

    Parts and levels are named as torchvision's: `body` and `fpn`; "0" to "3" from the finest on,
    and "pool". With `frozen` in a config whose `init` loads weights, the backbone's batch norms
    and all that its map of stride 4 is made of stay as they were loaded.

    Raises
    ------
    ConfigError
        There is no such network, or it has no maps of these strides.
    """

    def __init__(self, config: DiscFasterRcnn) -> None:
        super().__init__(
            config.backbone,
            channels=config.channels,
            maps=len(BODY_STRIDES),
            frozen=config.frozen and config.init != "none",
        )
        if self.strides != BODY_STRIDES:
            raise ConfigError(
                f"backbone {config.backbone}: its coarsest maps have strides {self.strides} px; a "
                f"pyramid needs {BODY_STRIDES} px; take another network"
            )
        self.fpn = FeaturePyramidNetwork(
            list(self.channels),
            config.pyramid_channels,
            LastLevelMaxPool(),
            nn.BatchNorm2d if config.version == "v2" else None,
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """The levels of images (B, C, H, W), each (B, pyramid_channels, H / stride, W / stride)."""
        maps = super().forward(images)
        levels: dict[str, Tensor] = self.fpn(OrderedDict(zip("0123", maps, strict=True)))
        return levels
