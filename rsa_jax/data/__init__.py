"""From videos to batches: decoding, preparation, frame sampling, the input pipeline and augmentation.

Only `builder` and the modules that import it (`pipeline`, `datasets`) import TensorFlow.
"""

import os

# TensorFlow reads this on import. Its notes and warnings would bury our own output. JAX sets "1".
if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "1") == "1":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
