"""One frozen configuration per process, read once: flags, environment, YAML file, defaults.

All mistakes are reported together and end the process with code 2. A key that nobody knows is a
mistake in a flag or in the file; in the environment it is not, because the variables of every
process share one prefix.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeVar, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from deltaplane.errors import Invalid
from deltaplane.runtime import address
from deltaplane.runtime.limiting import Limit
from deltaplane.runtime.log import Format, Level
from deltaplane.runtime.roles import Role
from deltaplane.runtime.tls import Tls

ENV_PREFIX = "DELTAPLANE_"
EXIT_CODE = 2
OTLP_MODULE = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


def _address(text: str) -> str:
    try:
        return str(address.parse(text))
    except Invalid as error:
        raise ValueError(error.reason) from None


ListenAddress = Annotated[str, AfterValidator(_address)]
"""`host:port`, `[v6]:port` or `unix:/path`, checked."""


def _at_least_one(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if not addresses:
        raise ValueError("at least one is needed")
    return addresses


# pydantic's own min_length would count what is left of wrong addresses, and report twice.
ListenAddresses = Annotated[tuple[ListenAddress, ...], AfterValidator(_at_least_one)]
"""At least one address."""


def _ratio(value: object) -> object:
    return {"always": 1.0, "never": 0.0}.get(value, value) if isinstance(value, str) else value


TraceRatio = Annotated[float, BeforeValidator(_ratio), Field(ge=0.0, le=1.0)]
"""Part of the traces that is recorded, 0..1; `always` is 1, `never` 0."""


def _collector(text: str) -> str:
    if not text:
        return ""
    if not isinstance(address.parse(_address(text)), address.Tcp):
        raise ValueError("host:port is needed")  # noqa: TRY004 - pydantic takes ValueError
    try:
        found = find_spec(OTLP_MODULE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise ValueError("needs the exporter: pip install 'deltaplane[otlp]'")
    return text


def existing_folder(path: Path | None) -> Path | None:
    """Refuses what is no folder; None stays None."""
    if path is not None and not path.is_dir():
        raise ValueError(f"{path} is no folder")
    return path and path.absolute()


class ProcessConfig(BaseSettings):
    """Options of every process.

    A field `node_name` is `--node-name`, DELTAPLANE_NODE_NAME and the key node_name of the file.
    One of type tuple[str, ...] takes a repeated flag or one text with commas.

    Attributes:
        EXAMPLES: command lines for --help, one a line.
    """

    model_config = SettingsConfigDict(
        # A process makes one of several models, and --help none.
        defer_build=True,
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        enable_decoding=False,
        extra="forbid",
        frozen=True,
    )
    EXAMPLES: ClassVar[str] = ""

    listen: ListenAddresses = Field(
        default=("127.0.0.1:0",),
        description="where the gRPC server listens: host:port or unix:/path; port 0: any free one",
    )
    admin: ListenAddress = Field(
        default="127.0.0.1:0",
        description="where /healthz, /readyz, /metrics and /traces are served",
    )
    log_format: Format = Field(default="json", description="json for machines, console for people")
    log_level: Level = Field(default="info", description="least level that is logged")
    trace_ratio: TraceRatio = Field(
        default=0.01,
        description="part of the CNI calls that is traced, 0 to 1, always or never; never: this "
        "process records nothing of what others trace, either",
    )
    trace_otlp: Annotated[str, AfterValidator(_collector)] = Field(
        default="",
        description="host:port of an OTLP collector (gRPC, plaintext) that gets the spans, too; "
        "needs the extra deltaplane[otlp]",
    )

    tls_dir: Annotated[Path | None, AfterValidator(existing_folder)] = Field(
        default=None,
        description="folder with ca.crt, tls.crt and tls.key: our certificate, towards clients, "
        "other services and etcd alike; it may be replaced at any time",
    )
    insecure: bool = Field(
        default=False,
        description="work without --tls-dir: in plain text, and whoever reaches a port may do "
        "everything. For development",
    )

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        if self.tls_dir is None and not self.insecure:
            raise ValueError(
                f"--tls-dir ({ENV_PREFIX}TLS_DIR): is needed; `deltaplane certs` makes one. For "
                f"development: --insecure ({ENV_PREFIX}INSECURE=1)"
            )
        if self.tls_dir is not None and self.insecure:
            raise ValueError("--tls-dir and --insecure: choose one")
        return self

    def tls_to(self, server: Role) -> Tls | None:
        """How to connect to a server of this role; None: in plain text."""
        return Tls(self.tls_dir, server) if self.tls_dir else None

    @property
    def limit(self) -> Limit | None:
        """How often a node may call; None: as often as it likes."""
        return None

    @property
    def instance(self) -> str:
        """Which of several such processes this is, in traces; empty: host and pid say it."""
        return ""

    @model_validator(mode="before")
    @classmethod
    def _split_commas(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {
            key: _split(value) if _is_list(cls, key) else value for key, value in values.items()
        }


def _lineage(text: str) -> str:
    if text and not re.fullmatch(r"[0-9a-f]{32}", text):
        raise ValueError("a lineage is 32 digits 0-9 a-f, as a service logs it when it starts")
    return text


class ServiceConfig(ProcessConfig):
    """Options of every process that talks to etcd."""

    etcd: ListenAddresses = Field(
        default=("127.0.0.1:2379",), description="etcd endpoints, host:port or unix:/path"
    )
    lineage: Annotated[str, AfterValidator(_lineage)] = Field(
        default="", description="refuse an etcd of another lineage; none: take any"
    )

    node_rate: float = Field(
        default=200.0,
        ge=0,
        description="calls per second that a node may make in the long run; 0: any number. Nodes "
        "are told apart by their certificates only",
    )
    node_burst: int = Field(
        default=1000, ge=1, description="calls that a node may make at once, after a pause"
    )

    @property
    def limit(self) -> Limit | None:
        """--node-rate and --node-burst."""
        return Limit(rate=self.node_rate, burst=self.node_burst)

    @property
    def expected_lineage(self) -> bytes:
        """16 bytes, or empty: any will do."""
        return bytes.fromhex(self.lineage)


Config = TypeVar("Config", bound=ProcessConfig)


def load(cls: type[Config], argv: Sequence[str]) -> Config:
    """Reads the configuration of this process. argv: without the program's name.

    On mistakes all of them go to standard error and the process exits with code 2; `--help` prints
    the options with examples and exits with 0.
    """
    mistakes: list[str] = []
    flags = _flags(cls, argv, mistakes)
    values = _file(flags.pop("config", None), mistakes)
    values |= EnvSettingsSource(cls)()
    values |= flags
    try:
        config = cls(**values)
    except ValidationError as error:
        mistakes += [_describe(cls, dict(detail)) for detail in error.errors()]
    else:
        if not mistakes:
            return config
    for mistake in mistakes:
        print(f"config: {mistake}", file=sys.stderr)  # noqa: T201 - the log is not set up yet
    sys.exit(EXIT_CODE)


class _Parser(argparse.ArgumentParser):
    """argparse exits at the first mistake; we want to tell all of them."""

    def error(self, message: str) -> NoReturn:
        raise argparse.ArgumentError(None, message)


def _parser(cls: type[ProcessConfig]) -> _Parser:
    parser = _Parser(
        prog=f"python -m {cls.__module__.rpartition('.')[0] or cls.__module__}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        epilog=f"Every option can also be set as {ENV_PREFIX}NAME in the environment or as name in "
        "the file; a flag wins over the environment, the environment over the file."
        + (f"\n\nexamples:\n{cls.EXAMPLES}" if cls.EXAMPLES else ""),
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file with options")
    for name, field in cls.model_fields.items():
        default = "" if field.is_required() else f" (default: {_show(field.default)})"
        help_text = f"{field.description or ''}{default}".replace("%", "%%")
        if field.annotation is bool and field.default is False:
            # A switch, which takes a value as well: --insecure, --insecure=false.
            parser.add_argument(_flag(name), dest=name, nargs="?", const="true", help=help_text)
            continue
        parser.add_argument(
            _flag(name),
            dest=name,
            metavar=name.upper(),
            action="append" if _is_list(cls, name) else "store",
            help=help_text,
        )
    return parser


def _flags(cls: type[ProcessConfig], argv: Sequence[str], mistakes: list[str]) -> dict[str, Any]:
    try:
        parsed, unknown = _parser(cls).parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        mistakes.append(str(error))
        return {}
    mistakes += [f"unknown argument {argument!r}; --help lists them" for argument in unknown]
    return vars(parsed)


def _file(path: str | None, mistakes: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    # A tenth of what a process without a file takes to start.
    import yaml  # noqa: PLC0415

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mistakes.append(f"--config {path}: {error}")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        mistakes.append(f"--config {path}: a mapping of options is needed, not {content!r}")
        return {}
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _describe(cls: type[ProcessConfig], detail: dict[str, Any]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return f"unknown option {name!r} in the file; --help lists them"
    message = detail["msg"].removeprefix("Value error, ")
    if name not in cls.model_fields:
        return str(message)
    where = f"{_flag(name)} ({ENV_PREFIX}{name.upper()})"
    if detail["type"] == "missing":
        return f"{where}: is needed"
    return f"{where}: {message}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_list(cls: type[BaseSettings], name: str) -> bool:
    field = cls.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is tuple


def _split(value: Any) -> Any:  # noqa: ANN401 - checked by pydantic afterwards
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    return tuple(
        part.strip() if isinstance(part, str) else part
        for item in value
        for part in (item.split(",") if isinstance(item, str) else [item])
        if part != ""
    )


def _show(default: Any) -> str:  # noqa: ANN401 - any option's default
    return ",".join(default) if isinstance(default, tuple) else str(default)
