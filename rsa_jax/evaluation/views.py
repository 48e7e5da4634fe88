"""Views of a video, clips x crops, and the logits of one view."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int, UInt8
from ml_collections import ConfigDict

from rsa_jax.input_pipeline.augmentation import square_crop
from rsa_jax.training.state import ModelDefinition, PyTree, merge_model


class View(NamedTuple):
    """Index of a clip in a video, and its crop: a `place` of `square_crop`."""

    clip: int | Int[Array, ""] = 0
    place: int | Int[Array, ""] = 1


@dataclasses.dataclass(frozen=True)
class Views:
    """Views of each video and the averaging of their scores, as configured in `config.eval`."""

    num_clips: int = 1
    num_crops: int = 1
    average: str = "probabilities"

    @classmethod
    def of(cls, config: ConfigDict) -> "Views":
        """The views of `config.eval`."""
        return cls(config.eval.num_clips, config.eval.num_crops, config.eval.average)

    def each(self) -> list[View]:
        """List of all views of a video."""
        places = {1: (1,), 3: (0, 1, 2)}[self.num_crops]
        return list(itertools.starmap(View, itertools.product(range(self.num_clips), places)))


def make_predict(
    model: ModelDefinition, config: ConfigDict
) -> Callable[[PyTree, PyTree, UInt8[Array, "B F H W 3"], View], Float[Array, "B K"]]:
    """Function from the frames of a pipeline batch to the logits of one view.

    The view is an argument of the compiled program. One program, called once per view, serves all views and needs the
    memory of only one.
    """

    def predict(
        params: PyTree, batch_stats: PyTree, frames: UInt8[Array, "B F H W 3"], view: View
    ) -> Float[Array, "B K"]:
        data = config.data
        frames = jax.lax.dynamic_slice_in_dim(frames, view.clip * data.num_frames, data.num_frames, axis=1)
        clips = square_crop(frames, view.place, image_size=data.image_size, eval_crop=data.eval_crop)
        return merge_model(model.eval, params, batch_stats)(clips)

    return predict
