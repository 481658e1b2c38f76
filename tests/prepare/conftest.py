"""Where data sets are read."""

import pytest


@pytest.fixture(params=["folder", "store"])
def place(request):
    """Return where a folder is read: there, or in a store that has its files."""
    if request.param == "folder":
        yield lambda folder: folder
        return
    fsspec = pytest.importorskip("fsspec", reason="stores need fsspec: pip install '.[remote]'")
    system = fsspec.filesystem("memory")
    system.store.clear()

    def put(folder):
        system.store.clear()
        system.put(f"{folder}/", "/sets/", recursive=True)
        return "memory://sets"

    yield put
    system.store.clear()
