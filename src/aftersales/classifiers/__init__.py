"""A classification head on an encoder: fine-tune, calibrate, export; and the linear floor it has to beat."""
