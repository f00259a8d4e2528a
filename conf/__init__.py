"""Hydra configuration of unigen: one YAML per verb, one folder per group."""
