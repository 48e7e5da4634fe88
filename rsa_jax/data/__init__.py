"""From videos to batches: decoding, preparation, frame sampling, the input pipeline and augmentation.

TensorFlow is imported by `builder` and what stands on it (`motion`, `video_folder`, `pipeline`) alone.
"""

import os

# TensorFlow reads it when it is imported: its notes and warnings would bury our own output. "1" is what JAX sets.
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
