"""From a prepared data set to augmented batches: order, frame sampling, reading, augmentation."""
