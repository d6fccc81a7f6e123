"""Settings come from the environment, and what does not fit is named."""

import os
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.limits import limits_of, media_limits
from service.settings import Settings


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("OPENAI_", "KSHOT_")):
            monkeypatch.delenv(name)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_STORE", "redis://user:hidden@host:1/0")
    monkeypatch.setenv("KSHOT_PORT", "9000")
    monkeypatch.setenv("KSHOT_CODECS", "h264, vp9")
    monkeypatch.setenv("KSHOT_BACKBONE_WEIGHTS", "/w/tiny.npz")
    monkeypatch.setenv("KSHOT_LLM_MODEL", "")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    settings = Settings.from_env()
    assert settings.port == 9000
    assert media_limits(limits_of(settings)).codecs == ("h264", "vp9")
    assert settings.backbone_weights == Path("/w/tiny.npz")
    assert settings.llm_model == Settings().llm_model
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "sk-hidden"
    assert "hidden" not in settings.shown()
    assert "hidden" not in repr(settings.openai_api_key)


@pytest.mark.parametrize("name", ["KSHOT_CHEKPOINT", "KSHOT_OPENAI_API_KEY", "kshot_stroe"])
def test_an_unknown_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError, match=name):
        Settings.from_env()


@pytest.mark.parametrize(
    ("name", "value"), [("KSHOT_PORT", "70000"), ("KSHOT_THREADS", "two"), ("KSHOT_WAIT_S", "-1")]
)
def test_a_value_that_does_not_fit_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name} is '{value}'"):
        Settings.from_env()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"KSHOT_CODECS": "h264,h265"}, r"KSHOT_CODECS is 'h264,h265'.*'h265'; write h264"),
        ({"KSHOT_CONTAINERS": "mp4,mkv"}, "nothing reads 'mkv'"),
        ({"KSHOT_CONTAINERS": ","}, "nothing reads ''"),
        ({"KSHOT_MIN_PICTURES": "40"}, "KSHOT_MAX_PICTURES .*KSHOT_MIN_PICTURES is 40"),
        ({"KSHOT_MIN_CLIP_S": "3", "KSHOT_MAX_CLIP_S": "2"}, "KSHOT_MIN_CLIP_S is 3"),
    ],
)
def test_what_would_refuse_every_clip_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], said: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        Settings.from_env()


def test_settings_are_frozen_and_every_one_is_explained() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]
    assert not [name for name, field in Settings.model_fields.items() if not field.description]
