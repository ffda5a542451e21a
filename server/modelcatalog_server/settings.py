"""All settings, read once: from flags, then from the environment (prefix ``MODELCATALOG_``), then the defaults here."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.refresh.gates import GateLimits
from modelcatalog_server.refresh.policy import RefreshPolicy, RetentionPolicy, RetryPolicy
from modelcatalog_server.refresh.schedule import Schedule, check_cron

PREFIX = "MODELCATALOG_"

_GATES = GateLimits()


def _check_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError("must be host:port, e.g. 127.0.0.1:50051")
    return value


def _check_upstream(value: str) -> str:
    try:
        url = urlsplit(value)
        has_host, is_folder = bool(url.hostname and url.port != 0), url.netloc in {"", "localhost"} and url.path != ""
    except ValueError as error:
        raise ValueError("is not a URL") from error
    if (url.scheme in {"https", "http"} and has_host) or (url.scheme == "file" and is_folder):
        return value.rstrip("/") if url.scheme != "file" else value
    raise ValueError("must begin with https://host, http://host or file:///folder")


def _check_database(value: SecretStr) -> SecretStr:
    """Refuse here what is no URL: libpq would say so with the whole of it, password and all."""
    text = value.get_secret_value()
    if "://" in text:
        try:
            urlsplit(text)
        except ValueError:
            raise ValueError("is not a URL") from None
    return value


def _check_cron(value: str) -> str:
    return check_cron(value.strip())


Cron = Annotated[str, AfterValidator(_check_cron)]
Address = Annotated[str, AfterValidator(_check_address)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Settings(BaseSettings):
    """What a process is told. Secrets do not show in ``repr``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # as compose files and shells pass on what is not set
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    insecure: bool = Field(
        False, description="Listen on any address although callers are not identified: everybody has every role."
    )
    listen: Address = Field("127.0.0.1:50051", description="Address of the gRPC server; port 0 takes a free one.")
    database_url: Annotated[SecretStr, AfterValidator(_check_database)] | None = Field(
        None, description="PostgreSQL 15 or later, as URL or conninfo. Unset: one of its own, in the data directory."
    )
    redis_url: SecretStr | None = Field(
        None, description="Redis 6.2 or later, or Valkey. Unset: one of its own, in the data directory."
    )
    data_dir: Path | None = Field(
        None,
        description="Where the own PostgreSQL keeps its data. Unset: /var/lib/modelcatalog for root, else"
        " ~/.local/share/modelcatalog.",
    )
    upstream_url: Annotated[str, AfterValidator(_check_upstream)] = Field(
        "https://models.dev",
        description="Where the catalog comes from: a site, or a file:// folder with catalog.json, or api.json and"
        " models.json.",
    )
    offline: bool = Field(False, description="Never ask upstream; an empty database gets the bundled snapshot.")
    max_age_hours: float = Field(24.0, gt=0, description="The catalog counts as stale beyond this age.")
    refresh_full_cron: Cron = Field(
        "0 2 * * *", description="When to refresh in full: five fields of cron, in UTC, or off."
    )
    refresh_incremental_cron: Cron = Field(
        "0 * * * *", description="When to look for changes: five fields of cron, in UTC, or off."
    )
    refresh_jitter_seconds: float = Field(
        600.0, ge=0, le=86_400, description="How much later than its time an incremental refresh may start."
    )
    refresh_attempts: int = Field(3, ge=1, le=10, description="How often upstream is asked in one refresh.")
    refresh_backoff_seconds: float = Field(
        1.0, gt=0, le=60, description="Pause before the second attempt; it doubles for each further one."
    )
    refresh_fallback_seconds: float = Field(
        60.0, ge=0, le=3600, description="How long after a failed incremental refresh a full one starts."
    )
    upstream_requests_per_minute: float = Field(
        20.0,
        gt=0,
        le=6000,
        description="How often upstream is asked at most, retries and refreshes of all kinds together.",
    )
    upstream_timeout_seconds: float = Field(
        60.0, gt=0, le=600, description="How long one attempt at fetching may take, all documents together."
    )
    history_days: float = Field(
        400.0,
        ge=1,
        description="How long refreshes are kept that changed nothing, in days; those that did are kept for good.",
    )
    audit_days: float = Field(400.0, ge=1, description="How long entries of the audit log are kept, in days.")
    event_days: float = Field(7.0, ge=1, description="How long the events of refreshes are kept, in days.")
    gate_min_models: int = Field(_GATES.min_models, ge=0, description="Refuse a payload with fewer models.")
    gate_min_providers: int = Field(_GATES.min_providers, ge=0, description="Refuse one with fewer providers.")
    gate_max_quarantined_percent: Percent = Field(
        _GATES.max_quarantined_percent, description="Refuse one with more bad records."
    )
    gate_max_removed_percent: Percent = Field(
        _GATES.max_removed_percent, description="Refuse one that removes more of the models."
    )
    gate_max_removed_percent_per_day: Percent = Field(
        _GATES.max_removed_percent_per_day, description="How much more for every day since a check."
    )
    gate_max_provider_removed_percent: Percent = Field(
        _GATES.max_provider_removed_percent, description="The same for the models of one provider."
    )
    gate_max_price_unit_slips: int = Field(
        _GATES.max_price_unit_slips, ge=0, description="Refuse one with more prices moved 500-fold."
    )
    cache_entries: int = Field(
        20_000,
        ge=0,
        description="How many responses a process keeps in its memory; 0: responses are not cached, in Redis neither.",
    )
    cache_bytes: int = Field(
        64 * 1024 * 1024, ge=1024 * 1024, description="How many bytes of responses a process keeps in its memory."
    )
    cache_redis_budget_ms: float = Field(
        5.0, gt=0, le=60_000, description="How long a read waits for Redis before it asks PostgreSQL, in milliseconds."
    )
    cache_hot_requests: int = Field(
        200, ge=0, le=10_000, description="How many of the most frequent requests are answered ahead of being asked."
    )
    reflection: bool = Field(True, description="Offer gRPC server reflection, which grpcurl lives on.")
    drain_seconds: float = Field(20.0, gt=0, le=300, description="How long calls may take to finish on SIGTERM.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe lines to log: debug, info, warning or error."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="console, json, or auto: console on a terminal, else json."
    )

    @field_validator("listen")
    @classmethod
    def _check_loopback(cls, value: str, others: ValidationInfo) -> str:
        host = value.rpartition(":")[0].strip("[]")
        is_loopback = host in {"localhost", "::1"} or host.startswith("127.")
        if not is_loopback and others.data.get("insecure") is False:
            raise ValueError("must be a loopback address while callers are not identified, or pass --insecure")
        return value

    @property
    def refresh_policy(self) -> RefreshPolicy:
        """How runs are looked after."""
        return RefreshPolicy(
            max_age=timedelta(hours=self.max_age_hours),
            fallback_delay=None if self.offline else timedelta(seconds=self.refresh_fallback_seconds),
        )

    @property
    def retention_policy(self) -> RetentionPolicy:
        """How long things are kept."""
        return RetentionPolicy(
            events=timedelta(days=self.event_days),
            refreshes=timedelta(days=self.history_days),
            audit=timedelta(days=self.audit_days),
        )

    @property
    def retry_policy(self) -> RetryPolicy:
        """How often upstream is asked in one run."""
        return RetryPolicy(attempts=self.refresh_attempts, initial_s=self.refresh_backoff_seconds)

    def make_schedule(self, seed: bytes) -> Schedule:
        """Return when refreshes start; never, offline. ``seed`` is the same on every replica."""
        if self.offline:
            return Schedule()
        return Schedule(
            full_cron=self.refresh_full_cron,
            incremental_cron=self.refresh_incremental_cron,
            jitter=timedelta(seconds=self.refresh_jitter_seconds),
            seed=seed,
        )

    @property
    def gate_limits(self) -> GateLimits:
        """What is still taken for a good payload."""
        return GateLimits(
            min_models=self.gate_min_models,
            min_providers=self.gate_min_providers,
            max_quarantined_percent=self.gate_max_quarantined_percent,
            max_removed_percent=self.gate_max_removed_percent,
            max_removed_percent_per_day=self.gate_max_removed_percent_per_day,
            max_provider_removed_percent=self.gate_max_provider_removed_percent,
            max_price_unit_slips=self.gate_max_price_unit_slips,
        )


def load_settings(**flags: Any) -> Settings:
    """Return the settings; flags that are ``None`` or empty were not given.

    Raises:
        StartupError: one line that names every bad value at once.
    """
    given = {name: value for name, value in flags.items() if value not in (None, "")}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise StartupError("bad settings: " + "; ".join(_describe(each) for each in error.errors())) from error


def _describe(error: Any) -> str:
    name = PREFIX + "_".join(str(part) for part in error["loc"]).upper()
    return f"{name}: {error['msg'].removeprefix('Value error, ')}"
