"""The scoring service: what it answers, how it is packaged as a Bento, and how a built Bento is served."""
