"""Understand and act on Chinese after-sales traffic: train, track, choose, package, serve, score."""

__version__ = "0.1.0"
