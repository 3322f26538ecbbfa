"""A network that grades places: a backbone, the level, and a small head."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from spine_tasks.configs import StenosisGrading
from spine_tasks.errors import ConfigError
from spine_tasks.tasks.backbone import unknown
from spine_tasks.tasks.grading.losses import grade_loss, log_probabilities, outputs_of
from spine_tasks.tasks.grading.split import cut

HEADS = 4  # of attention across levels


class Grader(nn.Module):
    """Grades of several conditions from the surroundings of places and their levels.

    In training it is called with images, levels, groups and grades and returns a loss a condition;
    in evaluation with the first three, and returns (N, K) logarithms of probabilities by
    condition.

    Parameters
    ----------
    conditions
        Condition -> its grades.
    weights
        Condition -> (K,) weights of the grades in the loss.
    """

    def __init__(
        self,
        config: StenosisGrading,
        conditions: Mapping[str, Sequence[str]],
        levels: int,
        weights: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.config, self.conditions, self.levels = config, dict(conditions), levels
        self.backbone = _backbone(config)
        # What makes features of images, or of maps; in a tuple, as its weights are the backbone's.
        self.body = (Stages(self.backbone) if config.features == "stages" else self.backbone,)
        features = _width(self.body[0], config)
        embedded = 0
        if config.level_embedding == "learned":
            self.level = nn.Embedding(levels, config.level_features)
            embedded = config.level_features
        elif config.level_embedding == "one_hot":
            embedded = levels
        self.head = _head(features + embedded, config)
        width = config.hidden[-1] if config.hidden else features + embedded
        self.across = _across(width, config)
        names = {name: outputs_of(len(grades), config.loss) for name, grades in conditions.items()}
        self.answers = nn.ModuleDict({name: nn.Linear(width, n) for name, n in names.items()})
        for name, weight in weights.items():
            self.register_buffer(f"weights_{name}", weight.float(), persistent=False)
        _freeze(self.backbone, config)
        self.train()

    def forward(
        self, images: Tensor, levels: Tensor, groups: Tensor, grades: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Losses in training, else logarithms of probabilities.

        Parameters
        ----------
        images
            (N, C, px, px) as of `inputs.finish`, or maps after `take_maps`.
        levels
            (N,) index of each place's level.
        groups
            (N,) places of one number are those of one study, that see each other.
        grades
            (N, conditions) -1 where not known or not asked.
        """
        share, other = None, None
        if self.training and self.config.mixup is not None:
            share = torch.distributions.Beta(self.config.mixup, self.config.mixup).sample().item()
            other = torch.randperm(len(images), device=images.device)
        tokens = self.head(self.features(images, levels))
        if share is not None:
            tokens = share * tokens + (1 - share) * tokens[other]
        tokens = self._seen_across(tokens, levels, groups)
        logits = {name: answer(tokens) for name, answer in self.answers.items()}
        if not self.training or grades is None:
            loss = self.config.loss
            return {name: log_probabilities(one.float(), loss) for name, one in logits.items()}
        return self._losses(logits, grades, share, other)

    def features(self, images: Tensor, levels: Tensor) -> Tensor:
        """What the head is given: (N, features) of the image, and then of its level."""
        found = self.body[0](images)
        return torch.cat([found, self._embedded(levels, found.dtype)], dim=1)

    def train(self, mode: bool = True) -> "Grader":
        """Switch dropout and the like; what is frozen stays in evaluation, so it never drifts."""
        super().train(mode)
        for module in self.backbone.modules():
            own = list(module.parameters())
            if own and not any(one.requires_grad for one in own):
                module.eval()
        return self

    def take_maps(self, images: Tensor) -> nn.Module:
        """Take maps of the frozen part from now on in place of images; return that part.

        Parameters
        ----------
        images
            (N, C, px, px) some images, to follow the backbone's way.

        Raises
        ------
        Uncut
            The backbone cannot be cut in two.
        """
        frozen, rest = cut(self.body[0], images)
        self.body = (rest,)
        return frozen

    def _embedded(self, levels: Tensor, dtype: torch.dtype) -> Tensor:
        if self.config.level_embedding == "learned":
            found: Tensor = self.level(levels)
            return found
        width = self.levels if self.config.level_embedding == "one_hot" else 0
        return nn.functional.one_hot(levels, self.levels)[:, :width].to(dtype)

    def _seen_across(self, tokens: Tensor, levels: Tensor, groups: Tensor) -> Tensor:
        """Tokens after those of the other levels of their group were looked at."""
        if self.across is None:
            return tokens
        _, group = torch.unique(groups, return_inverse=True)
        rows = tokens.new_zeros(int(group.max()) + 1, self.levels, tokens.shape[1])
        rows = rows.index_put((group, levels), tokens)
        present = torch.zeros(rows.shape[:2], dtype=torch.bool, device=tokens.device)
        present[group, levels] = True
        found: Tensor = self.across(rows, present)
        return tokens + found[group, levels]

    def _losses(
        self, logits: Mapping[str, Tensor], grades: Tensor, share: float | None, other: Any
    ) -> dict[str, Tensor]:
        losses = {}
        for at, (name, own) in enumerate(logits.items()):
            weights: Any = getattr(self, f"weights_{name}")
            loss = grade_loss(own, grades[:, at], weights, self.config.loss)
            if share is not None:
                mixed = grade_loss(own, grades[other, at], weights, self.config.loss)
                loss = share * loss + (1 - share) * mixed
            losses[name] = loss / len(logits)
        return losses


class Stages(nn.Module):
    """Means over the maps of all stages of a backbone, each stage's normalised, side by side."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """(N, features) of (N, C, px, px)."""
        maps = self.backbone.forward_intermediates(  # type: ignore[operator]
            images, intermediates_only=True
        )
        means = [one.mean(dim=(2, 3)) for one in maps]
        return torch.cat([nn.functional.layer_norm(one, one.shape[1:]) for one in means], dim=1)


class Attention(nn.Module):
    """The levels of a study look at each other."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, HEADS, dropout, batch_first=True)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        """What is added to (studies, levels, width)."""
        seen = self.norm(rows)
        found: Tensor = self.look(seen, seen, seen, key_padding_mask=~present)[0]
        return found


class Recurrent(nn.Module):
    """A gated recurrent unit runs along the levels in both directions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.run = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, rows: Tensor, present: Tensor) -> Tensor:
        """What is added to (studies, levels, width); absent levels are zeros."""
        found: Tensor = self.run(self.norm(rows) * present[..., None])[0]
        return found


def _across(width: int, config: StenosisGrading) -> nn.Module | None:
    if config.across == "none":
        return None
    if width % HEADS:
        raise ConfigError(f"across={config.across} needs hidden to end with a multiple of {HEADS}")
    return Attention(width, config.dropout) if config.across == "attention" else Recurrent(width)


def _head(width: int, config: StenosisGrading) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.GELU()]
        layers += [nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers)


def _backbone(config: StenosisGrading) -> nn.Module:
    name = config.backbone
    if not timm.is_model(name):
        raise unknown(name)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": _channels(config)}
    recipe = timm.get_pretrained_cfg(name)
    if recipe is not None and recipe.fixed_input_size:
        options["img_size"] = config.image_px
    try:
        body: nn.Module = timm.create_model(name, **options)
    except Exception as error:  # timm has no class of its own for: this network cannot do that
        raise _impossible(config, error) from error
    return body


def _width(body: nn.Module, config: StenosisGrading) -> int:
    """How many features it makes of an image."""
    image = torch.zeros(1, _channels(config), config.image_px, config.image_px)
    try:
        with torch.no_grad():
            found: Tensor = body.eval()(image)
    except Exception as error:
        raise _impossible(config, error) from error
    return found.shape[1]


def _channels(config: StenosisGrading) -> int:
    return 3 if config.slices == 1 else config.slices


def _impossible(config: StenosisGrading, error: Exception) -> ConfigError:
    return ConfigError(
        f"backbone {config.backbone}: timm makes none for {_channels(config)} channels of "
        f"{config.image_px} px and features={config.features} ({error}); take another image_px"
    )


def _freeze(backbone: nn.Module, config: StenosisGrading) -> None:
    if not config.freeze:
        return
    named = dict(backbone.named_parameters())
    trained: set[str] = set()
    if config.unfreeze_tensors is not None:
        trained = set(list(named)[-config.unfreeze_tensors :])
    if config.unfreeze_blocks is not None:
        of_layer = layers_of(backbone)
        last = sorted(set(of_layer.values()))[-config.unfreeze_blocks :]
        trained = {name for name, layer in of_layer.items() if layer in last}
    for name, parameter in named.items():
        parameter.requires_grad_(name in trained)


def layers_of(backbone: nn.Module) -> dict[str, int]:
    """Each parameter's layer, counted from the input, as timm groups them."""
    matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]
    found: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
    return found
