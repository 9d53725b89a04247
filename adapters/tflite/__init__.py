"""TFLite models: read, run, measured and written with weights of 2, 4 and 8 bits, without TensorFlow."""

from lampq.adapters.tflite.format import read as read
