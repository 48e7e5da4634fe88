"""Initial weights of a run, from a file or from another run."""

from collections.abc import Sequence
from typing import NamedTuple

from absl import logging
from etils import epath
from ml_collections import ConfigDict

from rsa_jax.errors import is_mistake
from rsa_jax.files import is_remote
from rsa_jax.nn.network import TSNResNet
from rsa_jax.training.models import load_model
from rsa_jax.training.workdir import read_config, read_dataset
from rsa_jax.weights import load_torch, read_state_dict
from rsa_jax.weights.state_dict import check_finite, is_torchvision
from rsa_jax.weights.transfer import Place, copy_weights, differing_blocks, named_weights, transform_blocks

# Values of `init_from` that are not paths: random weights, and a recipe that leaves the choice to the user.
RANDOM, REQUIRED = "none", "required"


def require_initial_weights(config: ConfigDict) -> None:
    """Checks that `init_from` is set in a recipe whose published run started from ImageNet weights.

    Raises:
        ValueError: `init_from` is still "required". The message tells where to get the weights.
    """
    if config.init_from == REQUIRED:
        name = f"resnet{config.model.depth}.tv_in1k"
        raise ValueError(
            "init_from: this recipe repeats a published run, which started from ImageNet weights; none are given. "
            f"Use torchvision's ResNet-{config.model.depth}: download\n"
            f"  https://huggingface.co/timm/{name}/resolve/main/model.safetensors\n"
            f"as {name}.safetensors, and add --config.init_from={name}.safetensors. To start from random weights "
            f"instead (do not expect the published accuracy), add --config.init_from={RANDOM}."
        )


class _Loaded(NamedTuple):
    """Result of loading weights into a network.

    Attributes:
        source: origin of the weights.
        blocks: blocks that were not loaded.
        reason: why the classifier was not loaded; empty if it was.
    """

    source: str
    blocks: list[Place]
    reason: str


def load_initial_weights(model: TSNResNet, config: ConfigDict, class_names: Sequence[str]) -> None:
    """Loads the weights of `config.init_from` in place, and logs their origin and which weights stay random.

    From a workdir, the weights of its best checkpoint, except for blocks whose transform has different weights there.
    From a file of the published code (or of `rsa-jax convert`), all weights. From a torchvision file, the
    weights outside of blocks with a transform. The classifier is loaded only from a workdir with the same class names:
    files do not name their classes.

    Args:
        model: model with random weights.
        config: run configuration.
        class_names: class names in the order of the model's classes.

    Raises:
        ValueError: `init_from` is "required", is neither a weights file nor a workdir, does not fit the network, or
            holds NaN or infinity.
        ImportError: it is a PyTorch file, and PyTorch is not installed.
    """
    require_initial_weights(config)
    if config.init_from == RANDOM:
        logging.info("Initial weights: random, seed %d (init_from=%s).", config.seed, RANDOM)
        return
    remote = is_remote(config.init_from)
    path = epath.Path(config.init_from) if remote else epath.Path(config.init_from).expanduser()
    if not config.init_from or not path.exists():
        raise ValueError(
            f"init_from: expected a weight file, a workdir or {RANDOM!r}; no such file: {config.init_from!r}"
        )
    if remote and not path.is_dir():
        raise ValueError(f"init_from: a weight file must be on a file system; copy it first, got {config.init_from!r}")
    try:
        loaded = (_load_workdir if path.is_dir() else _load_file)(model, path, class_names)
    except ValueError as error:
        if not is_mistake(error):
            raise
        place = "" if str(path) in str(error) else f"{path}: "
        raise ValueError(f"init_from: {place}{error}") from error
    logging.info("Initial weights: %s, %s. Classifier: %s.", path, loaded.source, loaded.reason or "loaded")
    if loaded.blocks:
        listing = ", ".join(f"{stage}.{index}" for stage, index in loaded.blocks)
        transform = config.model.transform
        logging.info(
            "Randomly initialised (seed %d): blocks %s (stage.block); no matching weights for their %s.",
            config.seed,
            listing,
            transform,
        )


def _load_file(model: TSNResNet, path: epath.Path, class_names: Sequence[str]) -> _Loaded:
    state_dict = read_state_dict(path)
    load_torch(model, state_dict, classifier=False)
    if is_torchvision(state_dict):
        return _Loaded("a torchvision ResNet", transform_blocks(model), "random: ImageNet has other classes")
    return _Loaded("a network of the published code", [], "random: a weight file does not name its classes")


def _load_workdir(model: TSNResNet, path: epath.Path, class_names: Sequence[str]) -> _Loaded:
    """Loads the best checkpoint of a workdir."""
    source, names = load_model(path), read_dataset(path)["class_names"]
    check_finite(named_weights(source))
    there, here = source.fc.out_features, model.fc.out_features
    reason = ""
    if names is None:
        reason = "random: the workdir does not record its class names"
    elif there != here:
        reason = f"random: the checkpoint has {there} classes, the model {here}"
    elif list(names) != list(class_names):
        same = sorted(names) == sorted(class_names)
        reason = "random: the checkpoint's classes " + ("are in another order" if same else "have other names")
    blocks = differing_blocks(model, source)
    copy_weights(model, source, skip=blocks, classifier=not reason)
    return _Loaded(f"the best checkpoint of a run on {read_config(path).data.name}", blocks, reason)
