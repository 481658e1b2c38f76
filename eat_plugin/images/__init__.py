"""Images as input; its modules are imported only where a run or a command has images."""

MOST_PIXELS = 89_478_485  # a quarter of a gigabyte in colour; Pillow warns above it
