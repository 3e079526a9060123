"""The gateway's settings, read from the environment once by each of its processes."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from ias.kit.settings import BusSettings, ProcessSettings


class GatewaySettings(BusSettings, ProcessSettings):
    """What a gateway is told. Times are in seconds, sizes in bytes."""

    identity_url: str = Field("http://127.0.0.1:8001", description="Base URL of identity, asked about unknown keys.")
    service_secret: SecretStr | None = Field(
        None, description="This process's client secret at identity; unset never asks identity."
    )
    identity_timeout_s: float = Field(2.0, gt=0, description="Deadline of one question to identity.")

    gateway_host: str = Field("127.0.0.1", description="Address to listen on.")
    gateway_port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    gateway_workers: int = Field(1, ge=1, description="Worker processes, each with its own event loop.")
    gateway_metrics_host: str = Field(
        "127.0.0.1",
        description="Address of `/metrics`, which names models. Where Prometheus is elsewhere: one that clients do not reach.",
    )
    gateway_metrics_port: int = Field(8007, ge=0, le=65535, description="Port of `/metrics`; 0 takes a free one.")
    gateway_compiled: bool = Field(
        True,
        description="Whether workers use the build of `make compile`, where there is one of exactly these sources.",
    )
    gateway_run_dir: Path = Field(
        Path("/tmp/ias-gateway"),  # noqa: S108 - a default for a laptop; deployments set it
        description="Where workers leave their metrics for the supervisor, and for the next ones.",
    )

    gateway_header_bytes_max: int = Field(65_536, gt=0, description="Largest request head; more is 431.")
    gateway_body_bytes_max: int = Field(33_554_432, gt=0, description="Largest request body, decoded; more is 413.")
    gateway_answer_bytes_max: int = Field(
        67_108_864, gt=0, description="Largest unstreamed answer of a backend; more is a 502."
    )
    gateway_event_bytes_max: int = Field(8_388_608, gt=0, description="Largest single event of a backend's stream.")
    gateway_header_timeout_s: float = Field(
        10.0, gt=0, description="From a request's first byte to the end of its head."
    )
    gateway_body_timeout_s: float = Field(
        30.0, gt=0, description="How long a request body, or each further 16 KiB of it, may take to arrive."
    )
    gateway_keepalive_s: float = Field(75.0, gt=0, description="Idle time before a client connection is closed.")
    gateway_write_timeout_s: float = Field(60.0, gt=0, description="Longest time a client may take no byte at all.")
    gateway_drain_s: float = Field(30.0, ge=0, description="Time that running requests get to finish after SIGTERM.")

    gateway_connect_timeout_s: float = Field(2.0, gt=0, description="Deadline of a connection to a backend.")
    gateway_first_byte_timeout_s: float = Field(300.0, gt=0, description="From request to the backend's first byte.")
    gateway_stream_comment_s: float = Field(
        0.0,
        ge=0,
        description="Silence in a stream after which its client is sent a comment, again and again; 0 sends none.",
    )
    gateway_stream_idle_timeout_s: float = Field(60.0, gt=0, description="Longest silence inside a stream.")
    gateway_total_timeout_s: float = Field(600.0, gt=0, description="Longest life of one request.")
    gateway_upstream_keepalive_s: float = Field(
        4.0, gt=0, description="Idle time before a backend connection is closed; below the backend's own (vLLM: 5 s)."
    )
    gateway_backend_connections_max: int = Field(
        1024, gt=0, description="Requests a worker has in flight at one backend at most."
    )
    gateway_queue_timeout_s: float = Field(
        30.0, gt=0, description="Longest wait for a place at a backend, or for one to wake; a route may say otherwise."
    )
    gateway_queue_length_max: int = Field(
        1000, ge=1, description="Requests for one model that a worker lets wait; more is 429 for whoever has most."
    )
    gateway_allow_loopback: bool = Field(
        False, description="Whether backends on this very machine are connected to; as `IAS_REGISTRY_ALLOW_LOOPBACK`."
    )
    gateway_allow_private_networks: bool = Field(
        True,
        description="Whether backends in private networks are connected to; as `IAS_REGISTRY_ALLOW_PRIVATE_NETWORKS`.",
    )
    gateway_tls_ca_file: Path | None = Field(None, description="CA file for https backends; unset trusts the system's.")
    gateway_cache_salt: bool = Field(
        True,
        description="Give each org its own vLLM prefix cache, so that timing tells nothing about another's prompts.",
    )

    gateway_idempotency_window_s: float = Field(
        86_400.0, ge=0, description="How long an `Idempotency-Key` and its answer are remembered; 0 ignores the header."
    )
    gateway_idempotency_bytes_max: int = Field(
        1_048_576,
        gt=0,
        description="Largest answer that is remembered; a larger one is made anew when asked for again.",
    )

    gateway_redis_timeout_s: float = Field(1.0, gt=0, description="Deadline of one Redis operation of the data path.")
    gateway_snapshot_ttl_s: float = Field(
        30.0, gt=0, description="Age at which a cached key is read again, should a push have been missed."
    )
    gateway_unknown_key_ttl_s: float = Field(3.0, gt=0, description="How long an unknown key is remembered as unknown.")
    gateway_snapshot_keys_max: int = Field(100_000, gt=0, description="Keys a worker remembers at most.")
    gateway_unpriced: Literal["refuse", "allow"] = Field(
        "refuse", description="What happens to a model without a price: 503 `model_unpriced`, or served for nothing."
    )

    gateway_spool_dir: Path = Field(
        Path("/tmp/ias-gateway/spool"),  # noqa: S108 - a default for a laptop; deployments set it
        description="Where usage records wait until the bus has confirmed them. Must survive the process.",
    )
    gateway_spool_bytes_max: int = Field(
        1_073_741_824, gt=0, description="Bytes of unpublished usage a host keeps; beyond, requests are refused (503)."
    )
    gateway_spool_fsync: Literal["never", "segment", "always"] = Field(
        "segment", description="When records are forced to disk: never, with each segment (1 s), or with each write."
    )
    gateway_stream_progress_s: float = Field(
        5.0,
        ge=0,
        description="How often it is noted on disk how far streams have come that take longer than this, for a worker that is"
        " killed; 0 never.",
    )
    gateway_publish_interval_s: float = Field(1.0, gt=0, description="Longest time a record waits to be published.")

    gateway_access_log: bool = Field(True, description="Write one JSON line per request to standard output.")
    gateway_access_log_share: float = Field(
        1.0, ge=0, le=1, description="Share of successful requests that are logged; refused and failed ones always are."
    )
    gateway_cors_origins: tuple[str, ...] = Field(
        (), description="Origins whose browsers may call the API (JSON array); `*` is any."
    )
    gateway_trusted_proxies: tuple[str, ...] = Field(
        (), description="Networks whose X-Forwarded-For is believed for the keys' IP allow-lists (JSON array)."
    )
