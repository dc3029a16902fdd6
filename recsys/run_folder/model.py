"""Configuration and weights of a run, to and from its folder."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from recsys import __version__
from recsys.config import build, read_toml, to_dict
from recsys.datasets.prepared.store import SequenceStore
from recsys.encoders.registry import (
    build_encoder,
    encoder_config,
    encoder_module,
    encoder_name,
    registration,
)
from recsys.errors import ConfigError, DataError, RunError
from recsys.files import is_still, read_json, replacing, save_tensors, sha256_of, write_json
from recsys.run_folder.layout import RunFolder
from recsys.run_folder.versions import VERSION, upgraded
from recsys.training.column_inputs import column_inputs
from recsys.training.config import TrainingConfig
from recsys.training.item_inputs import item_inputs

if TYPE_CHECKING:
    from recsys.encoders.base import EncoderConfig, SequenceEncoder

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``run.json`` says.

    Attributes:
        encoder: registered name.
        preset: its preset's name.
        n_items: V.
        sha256: of the weights' file.
        dataset: fingerprint of the prepared data; None where an earlier version did not record it.
        encoder_module: that registers an encoder which is not built in.
        parent: account of the run that this one goes on from with other data; None where there is none.
    """

    encoder: str
    preset: str
    n_items: int
    sha256: str
    dataset: str | None
    encoder_module: str | None
    parent: Mapping[str, Any] | None


def write_config(run: RunFolder, encoder: "EncoderConfig", training: TrainingConfig) -> None:
    """Write ``config.toml``."""
    import tomli_w

    with replacing(run.config) as temporary:
        text = tomli_w.dumps({"encoder": to_dict(encoder), "training": to_dict(training)})
        temporary.write_text(text, encoding="utf-8")


def write_model(
    run: RunFolder,
    encoder: "SequenceEncoder",
    *,
    preset: str,
    dataset: str,
    parent: Mapping[str, Any] | None,
) -> str:
    """Write the weights and then the manifest that makes the run whole.

    Args:
        run: where.
        encoder: with the weights to keep.
        preset: name of the preset that it was trained by.
        dataset: fingerprint of the prepared data.
        parent: account of the run that it goes on from with other data.

    Returns:
        The sha256 of the weights.
    """
    with replacing(run.weights) as temporary:
        save_tensors(encoder.state_dict(), temporary)
    digest = sha256_of(run.weights)
    manifest = {
        "format": VERSION,
        "version": __version__,
        "encoder": encoder_name(encoder),
        "preset": preset,
        "n_items": encoder.n_items,
        "sha256": digest,
        "dataset": dataset,
    }
    module = encoder_module(encoder)
    if module is not None:
        manifest["encoder_module"] = module
    if parent is not None:
        manifest["parent"] = dict(parent)
    write_json(run.manifest, manifest)
    return digest


def read_manifest(run: RunFolder) -> Manifest:
    """Read ``run.json`` of any version.

    Raises:
        RunError: no run, an unfinished or damaged one, or of a version that is not known.
    """
    path = run.path
    if not path.is_dir():
        raise RunError(f"{path}: no such run folder; train a run into it with out=")
    if not run.manifest.exists():
        hint = "not a run folder"
        if run.config.exists() and run.data.is_dir():
            hint = "training has not finished; go on with resume=True"
        raise RunError(f"{path}: {hint} ({run.manifest.name} is missing)")
    record = read_json(run.manifest)
    try:
        record = upgraded(record, run.manifest)
        return Manifest(
            encoder=str(record["encoder"]),
            preset=str(record["preset"]),
            n_items=int(record["n_items"]),
            sha256=str(record["sha256"]),
            dataset=record["dataset"],
            encoder_module=record.get("encoder_module"),
            parent=None if record.get("parent") is None else dict(record["parent"]),
        )
    except (KeyError, TypeError, ValueError):
        raise RunError(f"{run.manifest}: not a run's manifest; the file is damaged") from None


def read_settings(
    run: RunFolder, name: str, module: str | None = None
) -> "tuple[EncoderConfig, TrainingConfig]":
    """Read ``config.toml``.

    Args:
        run: where.
        name: of the encoder.
        module: that registers it, for the message where nobody did.

    Raises:
        RunError: the encoder is not known, or it is missing, or not one of this encoder.
    """
    sections: dict[str, dict[str, Any]]
    _require_encoder(run, name, module)
    try:
        sections = read_toml(run.config)
        config = encoder_config(name, sections["encoder"])
        return config, build(TrainingConfig, sections["training"], where="training")
    except ConfigError as error:
        raise RunError(f"{run.config}: damaged ({error})") from None


def read_run(path: str | Path) -> "tuple[SequenceEncoder, TrainingConfig, str]":
    """Rebuild the encoder of a finished run.

    Returns:
        The encoder in evaluation mode on the CPU, how it was trained, and its preset's name.

    Raises:
        RunError: not a run folder, an unfinished or damaged run, or one of another format.
    """
    return steadily(RunFolder(Path(path)), _rebuilt)[1]


def read_run_and_data(
    path: str | Path,
) -> "tuple[SequenceEncoder, TrainingConfig, str, SequenceStore, Mapping[str, Any] | None]":
    """Rebuild the encoder of a finished run as `read_run` does, and open the data that it was trained on.

    Returns:
        What `read_run` gives, the data, and the run's account of the run that it goes on from, if any.

    Raises:
        RunError, DataError: as `read_run`, or the data are missing, damaged, or not those of the training.
    """
    run = RunFolder(Path(path))

    def both(run: RunFolder, manifest: Manifest) -> Any:
        return _rebuilt(run, manifest), SequenceStore.open(run.data)

    manifest, (found, store) = steadily(run, both)
    return *found, require_own(run, manifest, store), manifest.parent


def steadily(run: RunFolder, read: Callable[[RunFolder, Manifest], Found]) -> tuple[Manifest, Found]:
    """What is read of one run, though another process may put another one in its place meanwhile.

    Args:
        run: where.
        read: reads files of the run whose manifest it is given; called again if that is not there any more.

    Returns:
        The manifest and what was read.
    """
    while True:
        manifest = read_manifest(run)
        try:
            stream = run.manifest.open("rb")
        except FileNotFoundError:
            continue
        with stream:
            try:
                found = read(run, manifest)
            except (RunError, DataError, ConfigError):
                # Files of two runs may not fit each other.
                if is_still(stream, run.manifest) and read_manifest(run) == manifest:
                    raise
                continue
            if is_still(stream, run.manifest) and read_manifest(run) == manifest:
                return manifest, found


def _rebuilt(run: RunFolder, manifest: Manifest) -> "tuple[SequenceEncoder, TrainingConfig, str]":
    """The encoder in evaluation mode, how it was trained, and its preset's name."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = run.weights.read_bytes()
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != manifest.sha256:
        raise RunError(f"{run.weights}: missing or damaged (its sha256 is not the recorded one); train anew")
    config, training = read_settings(run, manifest.encoder, manifest.encoder_module)
    features, columns = None, None
    reads_columns = config.event_columns or config.request_columns or config.user_columns
    if config.item_parts != "id" or reads_columns:
        store = require_own(run, manifest, SequenceStore.open(run.data))
        features, columns = item_inputs(store), column_inputs(store)
    encoder = build_encoder(manifest.encoder, manifest.n_items, config, features=features, columns=columns)
    try:
        encoder.load_state_dict(load(content))
    except (RuntimeError, SafetensorError):
        raise RunError(f"{run.config}: does not fit {run.weights.name}; one of them was edited") from None
    return encoder.eval(), training, manifest.preset


def require_own(run: RunFolder, manifest: Manifest, store: SequenceStore) -> SequenceStore:
    """The data of a run.

    Raises:
        RunError: it was not trained on them.
    """
    if manifest.dataset not in (None, store.fingerprint):
        raise RunError(
            f"{run.data}: is not the data that this run was trained on; put these back, or train anew"
        )
    return store


def _require_encoder(run: RunFolder, name: str, module: str | None) -> None:
    """Say what an encoder that is not built in needs; nothing is imported because a folder names it."""
    try:
        registration(name)
    except ConfigError as error:
        if not isinstance(module, str):
            raise RunError(f"{run.path}: {error}; import the module that registers it first") from None
        raise RunError(
            f"{run.path}: its encoder {name!r} is not built in: import {module} first (plugin='{module}' on "
            "the command line)"
        ) from None


def fingerprint(encoder: "SequenceEncoder") -> str:
    """Hex sha256 over an encoder's weights, by which an index knows its model."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    if encoder.item_features_digest is not None:
        digest.update(encoder.item_features_digest.encode())
    if encoder.columns_digest is not None:
        digest.update(encoder.columns_digest.encode())
    return digest.hexdigest()
