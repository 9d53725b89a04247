"""For authors of other formats: what every model keeps to, as checks (`lampq.testing.model_laws`)."""
