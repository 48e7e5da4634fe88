"""From videos to batches: decoding, preparation, frame sampling, the input pipeline and augmentation.

TensorFlow is imported by `builder` and what stands on it (`motion`, `video_folder`, `pipeline`) alone.
"""

import os

# TensorFlow reads it when it is imported: its notes on CPU features would bury our own output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
