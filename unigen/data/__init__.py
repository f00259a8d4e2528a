"""Sources of training data: each yields raw media by part name, what is missing is missing."""
