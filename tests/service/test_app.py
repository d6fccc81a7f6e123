"""The lifetime of the application."""

import gc
from pathlib import Path

from service.app import create_app
from service.settings import Settings


async def test_collections_leave_what_was_there_at_the_start_alone(
    checkpoint: Path, tmp_path: Path
) -> None:
    settings = Settings(
        store=f"sqlite:{tmp_path / 'kshot.db'}", checkpoint=str(checkpoint), decode_workers=1
    )
    app = create_app(settings)
    gc.unfreeze()  # what the tests froze
    before = gc.get_freeze_count()
    async with app.router.lifespan_context(app):
        assert gc.get_freeze_count() - before > 10_000
        assert len(gc.get_objects()) < gc.get_freeze_count()
    assert gc.get_freeze_count() == 0
