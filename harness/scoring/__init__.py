"""Scoring: a trusted scorer that holds val, and an untrusted server that holds the model."""
