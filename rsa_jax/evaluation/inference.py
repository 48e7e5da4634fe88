"""A trained network as a function of frames. The workdir provides all settings."""

from collections.abc import Iterable, Iterator
from itertools import islice

import jax
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from rsa_jax.evaluation.chunks import Chunk, Reading, stored_as
from rsa_jax.evaluation.scores import all_class_names, average_views
from rsa_jax.evaluation.views import Views, make_predict
from rsa_jax.precision import with_precision
from rsa_jax.training.models import load_model
from rsa_jax.training.state import define_model, split_model
from rsa_jax.training.workdir import read_config, read_dataset, workdir_path


class Predictor:
    """Probabilities of all classes, computed as in evaluation, with the views of the workdir's configuration.

    Args:
        workdir: workdir of a run.
        checkpoint: "best", "latest" or a step.

    Attributes:
        class_names: name of every class of the network; "class 12" where the workdir has no name.
        reading: how the workdir's data set would have stored a video, and which of its frames are used.

    Raises:
        WorkdirError: the workdir holds no such checkpoint.
    """

    def __init__(self, workdir: epath.PathLike, checkpoint: str = "best"):
        workdir = workdir_path(workdir)
        config, dataset = read_config(workdir), read_dataset(workdir)
        self._views = Views.of(config)
        self._arrays = split_model(load_model(workdir, checkpoint))
        self._predict = jax.jit(
            with_precision(make_predict(define_model(config.model, jax.devices()[0]), config), config.matmul_precision)
        )
        self.class_names = all_class_names(dataset["class_names"], config.model.num_classes)
        self.reading = Reading(
            config.data.num_frames, config.data.sampling, config.eval.num_clips, **stored_as(dataset)
        )

    def __call__(self, frames: UInt8[np.ndarray, "B F H W 3"]) -> Float[np.ndarray, "B K"]:
        """Class probabilities from stored frames: those of each video's clips, one clip after the other."""
        logits = [self._predict(*self._arrays, frames, view) for view in self._views.each()]
        return np.exp(average_views(np.stack(jax.device_get(logits)), self._views.average))

    def stream(self, chunks: Iterable[Chunk], batch_size: int) -> Iterator[tuple[Chunk, Float[np.ndarray, " K"]]]:
        """Chunks with their probabilities. Only the last batch may be smaller, so two programs suffice."""
        waiting = iter(chunks)
        while batch := list(islice(waiting, batch_size)):
            yield from zip(batch, self(np.stack([chunk.frames() for chunk in batch])), strict=True)
