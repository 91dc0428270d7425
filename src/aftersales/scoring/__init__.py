"""Score files of any size with the champions: streaming, constant memory, resumable."""
