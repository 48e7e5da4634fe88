"""Scores of a split, in which every video counts exactly once."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from rsa_jax.training.scores import average_views
from rsa_jax.training.state import ModelDefinition, PyTree, to_devices
from rsa_jax.training.step import Batch, View, make_predict

# Places of `square_crop`, by the number of crops.
CROP_PLACES = {1: (1,), 3: (0, 1, 2)}

EvalStep = Callable[[PyTree, PyTree, Batch, View], Batch]


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of each video, and how their scores are averaged: `num_clips`, `num_crops`, `average` of the config."""

    num_clips: int = 1
    num_crops: int = 1
    average: str = "probabilities"

    @classmethod
    def of(cls, config: ConfigDict) -> "Views":
        """Those of `config.eval`."""
        return cls(config.eval.num_clips, config.eval.num_crops, config.eval.average)

    def each(self) -> list[View]:
        """All of them."""
        return list(itertools.starmap(View, itertools.product(range(self.num_clips), CROP_PLACES[self.num_crops])))


def make_eval_step(model: ModelDefinition, config: ConfigDict) -> EvalStep:
    """`logits` of one view of a batch, with `index`, `label` and `mask` of its videos."""
    predict = make_predict(model, config)

    def eval_step(params: PyTree, batch_stats: PyTree, batch: Batch, view: View) -> Batch:
        videos = {name: batch[name] for name in ("index", "label", "mask")}
        return {"logits": predict(params, batch_stats, batch["frames"], view), **videos}

    return eval_step


def evaluate(
    eval_step: EvalStep,
    params: PyTree,
    batch_stats: PyTree,
    batches: Iterable[dict[str, np.ndarray]],
    mesh: jax.sharding.Mesh,
    views: Views,
) -> tuple[Float[np.ndarray, "N K"], Int[np.ndarray, " N"], list[str]]:
    """Runs a compiled `make_eval_step` over the batches, one view after the other.

    Args:
        eval_step: compiled, with outputs that every device holds.
        params: of the network.
        batch_stats: of the network.
        batches: of this process, with the frames of `views.num_clips` clips.
        mesh: of all devices.
        views: of each video.

    Returns:
        Log-probabilities, labels and ids of all videos in the order of the split, in every process.

    Raises:
        ValueError: there is no batch.
    """
    ids: list[tuple[np.ndarray, np.ndarray]] = []

    def outputs() -> Iterator[list[Batch]]:
        for batch in batches:
            ids.append((batch["index"], batch["id"]))
            on_devices = to_devices(mesh, batch)
            yield [eval_step(params, batch_stats, on_devices, view) for view in views.each()]

    rows = []
    # One batch behind: the devices have the next one while the host averages.
    for done, _ in itertools.pairwise(itertools.chain(outputs(), [[]])):
        videos, *_ = fetched = jax.device_get(done)
        logits = np.stack([output["logits"] for output in fetched])
        counts = videos["mask"] == 1
        rows.append((videos["index"][counts], videos["label"][counts], average_views(logits[:, counts], views.average)))
    if not rows:
        raise ValueError("evaluation: the split holds no video")
    index, label, log_probabilities = map(np.concatenate, zip(*rows, strict=True))
    order = np.argsort(index)
    return log_probabilities[order], label[order], _gather_ids(*map(np.concatenate, zip(*ids, strict=True)))


def _gather_ids(index: Int[np.ndarray, " n"], ids: np.ndarray) -> list[str]:
    """Ids of all processes' videos, in the order of the split.

    Args:
        index: position of each in the split; padding repeats some.
        ids: bytes. Each process brings as many.
    """
    ids = ids.astype(np.bytes_)
    width = int(np.max(multihost_utils.process_allgather(np.int32(ids.itemsize))))
    codes = ids.astype(f"S{width}")[:, None].view(np.uint8)
    index, codes = multihost_utils.process_allgather((index, codes), tiled=True)
    _, first = np.unique(index, return_index=True)
    return np.char.decode(codes[first].view(f"S{width}")[:, 0], "utf-8").tolist()
