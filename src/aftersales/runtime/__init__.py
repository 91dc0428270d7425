"""The exported model: verify, load, batch, predict. Serving runs on this room alone: no torch, no training code."""
