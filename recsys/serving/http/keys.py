"""Keys of a service: a file of their hashes, names and scopes; whose a secret is; cookies of the page.

```toml
[[keys]]
name = "shop"
sha256 = "…"                 # of the secret, which is nowhere else
scopes = ["read", "write"]   # or "admin"
rate = 200.0                 # requests a second of one worker, if limited
in_flight = 64               # requests at a time of one worker, if limited
```
"""

import hashlib
import hmac
import re
import secrets
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.errors import ConfigError

SCOPES = ("read", "write", "admin")
COOKIE = "recsys_session"
SESSION_SECONDS = 12 * 3600

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Key:
    """Whom a secret belongs to.

    Attributes:
        name: for lines and the page.
        sha256: hash of the secret, in hexadecimal.
        scopes: what it may do.
        rate: requests a second that a worker takes of it; None is no limit.
        in_flight: requests that a worker takes of it at a time; None is no limit.
    """

    name: str
    sha256: str
    scopes: frozenset[str]
    rate: float | None = None
    in_flight: int | None = None


@dataclass(slots=True, eq=False)
class Keys:
    """The keys of a file, read again by `reread`."""

    path: Path
    _keys: tuple[Key, ...] = field(default=())

    @classmethod
    def read(cls, path: str | Path) -> "Keys":
        """Read a file of keys.

        Raises:
            ConfigError: it cannot be read, or is not such a file; the message never holds a hash.
        """
        found = cls(Path(path))
        found.reread()
        return found

    def reread(self) -> None:
        """Take what the file holds now; the keys stay as they were where it raises.

        Raises:
            ConfigError: as `read`.
        """
        self._keys = _read(self.path)

    def of_secret(self, secret: str) -> Key | None:
        """The key that a secret is of; takes the same time whichever it is, and if there is none."""
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(given, key.sha256):
                found = key
        return found

    def session(self, key: Key, now: float | None = None) -> str:
        """Value of a cookie that stands for a key until it expires or the key is taken from the file."""
        expires = int((time.time() if now is None else now) + SESSION_SECONDS)
        return f"{key.name}|{expires}|{_signature(key, expires)}"

    def of_session(self, value: str, now: float | None = None) -> Key | None:
        """The key that a cookie stands for, None where it does not any more."""
        name, _, rest = value.partition("|")
        expires, _, signature = rest.partition("|")
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
            return None
        found = None
        for key in self._keys:
            right = hmac.compare_digest(_signature(key, int(expires)), signature)
            if key.name == name and right:
                found = key
        return found if int(expires) > (time.time() if now is None else now) else None


def new_key(path: Path, name: str, scopes: tuple[str, ...]) -> str:
    """Add a key to a file, which is made where there is none; return its secret, which is kept nowhere.

    Raises:
        ConfigError: the name or a scope is not one, the name is taken, or the file cannot be read.
    """
    import tomli_w

    from recsys.files import write_text

    # A file without a word is one that somebody has made room for.
    rows = [_row(key) for key in _read(path)] if path.exists() and _text(path).strip() else []
    if any(row["name"] == name for row in rows):
        raise ConfigError(f"{path}: a key {name!r} is there already; choose another name")
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    row = {"name": name, "sha256": digest, "scopes": list(scopes)}
    _key(row, f"{path}, key {name!r}")
    write_text(path, tomli_w.dumps({"keys": [*rows, row]}))
    path.chmod(0o600)
    return secret


def _signature(key: Key, expires: int) -> str:
    text = f"recsys session|{key.name}|{expires}"
    return hmac.new(key.sha256.encode(), text.encode(), hashlib.sha256).hexdigest()


def _row(key: Key) -> dict[str, Any]:
    row: dict[str, Any] = {"name": key.name, "sha256": key.sha256, "scopes": sorted(key.scopes)}
    limits = {"rate": key.rate, "in_flight": key.in_flight}
    return row | {name: value for name, value in limits.items() if value is not None}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; make one: recsys keys new NAME --file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{path}: keys cannot be read ({reason}); name another file") from None


def _read(path: Path) -> tuple[Key, ...]:
    text = _text(path)
    if not text.strip():
        raise ConfigError(f"{path}: holds no keys; make one: recsys keys new NAME --file {path}")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: keys are not TOML ({error})") from None
    rows = found.get("keys")
    if not isinstance(rows, list) or not rows or set(found) != {"keys"}:
        raise ConfigError(f"{path}: holds no [[keys]], or more than those; name another file")
    keys = tuple(_key(row, f"{path}, key {number}") for number, row in enumerate(rows, 1))
    for name in {key.name for key in keys}:
        if sum(key.name == name for key in keys) > 1:
            raise ConfigError(f"{path}: two keys are called {name!r}; give each its own name")
    return keys


def _key(row: Any, place: str) -> Key:
    if not isinstance(row, dict):
        raise ConfigError(f"{place}: write name, sha256 and scopes under [[keys]]")
    odd = sorted(set(row) - {"name", "sha256", "scopes", "rate", "in_flight"})
    if odd:
        raise ConfigError(f"{place}: has {odd[0]!r}, which a key does not; remove it")
    name, digest, scopes = row.get("name"), row.get("sha256"), row.get("scopes")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{place}: name has to be up to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise ConfigError(f"{place}: sha256 has to be 64 hexadecimal digits, in lower case")
    if not isinstance(scopes, list) or not scopes or not set(map(str, scopes)) <= set(SCOPES):
        raise ConfigError(f"{place}: scopes has to be some of {', '.join(SCOPES)}")
    rate, in_flight = row.get("rate"), row.get("in_flight")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
        raise ConfigError(f"{place}: rate has to be requests a second, above 0")
    if in_flight is not None and (
        isinstance(in_flight, bool) or not isinstance(in_flight, int) or in_flight < 1
    ):
        raise ConfigError(f"{place}: in_flight has to be a number of requests, 1 or more")
    rate = None if rate is None else float(rate)
    return Key(name, digest, frozenset(scopes), rate, in_flight)
