"""Text encoders: one function loads the embedded one, a local folder or a hub name; and how ours is made."""
