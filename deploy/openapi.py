"""Write docs/openapi.json, the OpenAPI document of the service with its default settings.

    python -m deploy.openapi

The client's models are compared with it, and tests/test_documents.py compares it with the service.
"""

import argparse
import json
from pathlib import Path

PLACE = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"


def document() -> str:
    """Return the document as it is kept: indented, so that a change shows in a few lines."""
    # Not at the top: `--help` needs none of it.
    from service.app import create_app
    from service.settings import Settings

    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Rewrite the document in place."""
    argparse.ArgumentParser(description="Write the service's OpenAPI document.").parse_args()
    PLACE.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
