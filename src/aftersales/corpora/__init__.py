"""Labelled texts and interactions: read, validate, split, fingerprint."""
