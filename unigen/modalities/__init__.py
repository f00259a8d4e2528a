"""The kinds of media: the only place that knows a modality by name."""
