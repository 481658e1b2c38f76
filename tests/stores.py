"""What tests of stores share."""

from eat_plugin.data import remote, stores


def restart():
    """Forget what a process knows of stores, as in a new one."""
    stores._stores.clear()
    remote._begin_process()


def clear_cache(folder):
    """Remove what was fetched to the folder ``cache`` there."""
    for path in (folder / "cache").rglob("*"):
        if path.is_file():
            path.unlink()
