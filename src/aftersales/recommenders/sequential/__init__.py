"""SASRec, a causal transformer over the history, at the level of published models."""

from aftersales.recommenders.sequential.config import SequentialConfig
from aftersales.recommenders.sequential.model import Sequential

__all__ = ["Sequential", "SequentialConfig"]
