"""Images as input: imported only where `task.images` is set or an image is decoded."""
