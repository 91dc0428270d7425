"""Text as every other room sees it: one normal form for training, evaluation and serving."""
