"""The command line, thin: it reads arguments, calls a room or a recipe, and prints. Heavy imports wait until used."""
