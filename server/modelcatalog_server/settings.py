"""All settings, read once: from flags, then from the environment (prefix ``MODELCATALOG_``), then the defaults here."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelcatalog_server.domain.errors import StartupError
from modelcatalog_server.domain.features import SWITCHABLE, Feature
from modelcatalog_server.domain.limits import RateLimit, RateLimits
from modelcatalog_server.refresh.gates import GateLimits
from modelcatalog_server.refresh.policy import RefreshPolicy, RetentionPolicy, RetryPolicy
from modelcatalog_server.refresh.schedule import Schedule, check_cron

PREFIX = "MODELCATALOG_"

_GATES = GateLimits()

# Stands for a setting that is bad, which is said at its own place.
_BAD = object()
_NEEDED_BY_CLIENT_CA = {
    "tls_cert": "certificates are part of TLS",
    "tokens_file": "it says which certificate has which role",
}


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


def _check_features(value: str) -> str:
    unknown = {name.strip() for name in value.split(",")} - {*SWITCHABLE}
    if unknown:
        raise ValueError(f"does not know {', '.join(sorted(unknown))}; there are {', '.join(SWITCHABLE)}")
    return value


def _check_cron(value: str) -> str:
    return check_cron(value.strip())


def _check_rate(value: str) -> str:
    text = value.strip().lower()
    if text != "off":
        RateLimit.parse(text)
    return text


Rate = Annotated[str, AfterValidator(_check_rate)]


def _check_endpoint(value: str) -> str:
    scheme, separator, address = value.partition("://")
    if not separator or scheme not in {"http", "https"}:
        raise ValueError("must be http://host:port, or https:// with TLS, e.g. http://127.0.0.1:4317")
    _check_address(address.rstrip("/"))
    return value


def _check_metrics_address(value: str) -> str:
    if value == "off" or (value.startswith("unix:") and len(value) > len("unix:")):
        return value
    try:
        return _check_address(value)
    except ValueError as error:
        raise ValueError("must be host:port, e.g. 127.0.0.1:9464, unix:path or off") from error


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
        False,
        description="Listen on any address although callers are not identified, or their tokens travel unencrypted.",
    )
    tls_cert: Path | None = Field(
        None, description="The server's certificate chain, PEM. Unset: connections are not encrypted."
    )
    tls_key: Path | None = Field(None, validate_default=True, description="The private key of TLS_CERT, PEM.")
    tokens_file: Path | None = Field(
        None,
        description="The tokens and certificates of callers, and their roles, TOML. Unset: callers are not identified.",
    )
    tls_client_ca: Path | None = Field(
        None, description="Authorities that sign the certificates of callers, PEM; every caller has to show one."
    )
    listen: Address = Field("127.0.0.1:50051", description="Address of the gRPC server; port 0 takes a free one.")
    metrics_listen: Annotated[str, AfterValidator(_check_metrics_address)] = Field(
        "127.0.0.1:9464", description="Address of metrics and probes over HTTP: host:port, unix:path, or off."
    )
    traces_endpoint: Annotated[str, AfterValidator(_check_endpoint)] | None = Field(
        None, description="OpenTelemetry collector to send traces to, OTLP over gRPC. Unset: nothing is traced."
    )
    workers: int = Field(
        1, ge=1, le=64, description="How many processes serve, on one port; 1: this one. More need Linux."
    )
    database_url: Annotated[SecretStr, AfterValidator(_check_database)] | None = Field(
        None, description="PostgreSQL 15 or later, as URL or conninfo. Unset: one of its own, in the data directory."
    )
    database_replica_url: Annotated[SecretStr, AfterValidator(_check_database)] | None = Field(
        None, description="A read replica of that database, which answers reads while it is at the same revision."
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis 6.2 or later, or Valkey: one, a cluster (redis+cluster://), or what Sentinels say is the"
        " master (redis+sentinel://). Unset: one of its own, in the data directory.",
    )
    data_dir: Path | None = Field(
        None,
        description="Where the own PostgreSQL keeps its data. Unset: /var/lib/modelcatalog for root, else"
        " ~/.local/share/modelcatalog.",
    )
    upstream_url: Annotated[str, AfterValidator(_check_upstream)] = Field(
        "https://models.dev",
        repr=False,  # may hold user:password@
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
    reflection_open: bool = Field(
        False, description="Offer reflection to callers without a role, too, where callers are identified."
    )
    reflection: bool = Field(True, description="Offer gRPC server reflection, which grpcurl lives on.")
    rate_limit_principal: Rate = Field(
        "1000/second", description="How often a principal may call: a number per second, minute, hour or day, or off."
    )
    rate_limit_address: Rate = Field(
        "2000/second", description="How often an address may call, all its principals together, or off."
    )
    rate_limit_failures: Rate = Field(
        "30/minute", description="How often an address may try a token that is none, or off."
    )
    max_concurrent_calls: int = Field(
        256, ge=1, le=100_000, description="How many calls a process works on at once, near hits and streams apart."
    )
    max_queued_calls: int = Field(
        256, ge=0, le=100_000, description="How many calls may wait, for a second at most, until they are worked on."
    )
    max_streams_per_caller: int = Field(
        20, ge=1, le=10_000, description="How many streams a principal, or an address without one, may have open."
    )
    disabled_features: Annotated[str, AfterValidator(_check_features)] | None = Field(
        None, description=f"What is not answered, names with commas between: {', '.join(SWITCHABLE)}."
    )
    drain_seconds: float = Field(
        20.0, gt=0, le=300, description="How long calls may take to finish on SIGTERM, after the delay."
    )
    drain_delay_seconds: float = Field(
        0.25,
        ge=0,
        le=300,
        description="How long it goes on answering, at least, after it has turned not ready on SIGTERM.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe lines to log: debug, info, warning or error."
    )
    access_log_percent: Percent = Field(
        1.0, description="How many of the calls that succeed leave a line in the log; those that fail all do."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="console, json, or auto: console on a terminal, else json."
    )

    @field_validator("tls_key")
    @classmethod
    def _check_pair(cls, value: Path | None, others: ValidationInfo) -> Path | None:
        if "tls_cert" in others.data and (value is None) != (others.data["tls_cert"] is None):
            raise ValueError("TLS_CERT and TLS_KEY belong together: set both or none")
        return value

    @field_validator("tls_client_ca")
    @classmethod
    def _check_client_ca(cls, value: Path | None, others: ValidationInfo) -> Path | None:
        for name in ("tls_cert", "tokens_file"):
            if value is not None and name in others.data and others.data[name] is None:
                raise ValueError(f"needs {name.upper()} too: {_NEEDED_BY_CLIENT_CA[name]}")
        return value

    @field_validator("listen")
    @classmethod
    def _check_loopback(cls, value: str, others: ValidationInfo) -> str:
        host = value.rpartition(":")[0].strip("[]")
        if _is_loopback(host) or others.data.get("insecure") is not False:
            return value
        if others.data.get("tokens_file", _BAD) is None:
            raise ValueError(
                "must be a loopback address while callers are not identified, or pass --insecure; TOKENS_FILE"
                " identifies them"
            )
        if others.data.get("tls_cert", _BAD) is None:
            raise ValueError(
                "must be a loopback address while tokens would travel unencrypted, or pass --insecure; TLS_CERT and"
                " TLS_KEY encrypt"
            )
        return value

    @property
    def rate_limits(self) -> RateLimits:
        """How often callers may call."""
        return RateLimits(
            per_principal=_parse_rate(self.rate_limit_principal),
            per_address=_parse_rate(self.rate_limit_address),
            failures=_parse_rate(self.rate_limit_failures),
        )

    @property
    def features(self) -> frozenset[Feature]:
        """What there is of the optional capabilities."""
        disabled = {name.strip() for name in (self.disabled_features or "").split(",")}
        crons = {self.refresh_full_cron, self.refresh_incremental_cron}
        has_own_setting = {
            Feature.SCHEDULE: not self.offline and crons != {"off"},
            Feature.CACHE: self.cache_entries > 0,
            Feature.REFLECTION: self.reflection,
        }
        return frozenset(each for each in Feature if has_own_setting.get(each, each not in disabled))

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


def _is_loopback(host: str) -> bool:
    """Whether an address reaches nobody else. A name that begins with 127 may be anybody's."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_rate(text: str) -> RateLimit | None:
    return None if text == "off" else RateLimit.parse(text)


def reveal(settings: Settings) -> dict[str, Any]:
    """Return the values, secrets too, as JSON can hold them: what another process makes the same settings of."""
    values = {name: getattr(settings, name) for name in Settings.model_fields}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


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
