"""A run on disk: configuration, weights, data, report. Everything needed to answer is inside.

    config.toml          [encoder] and [training], ready for --config
    run.json             format, encoder's name, catalog size, sha256 of the weights, fingerprint of the data
    model.safetensors    best weights
    data/                the prepared dataset: sequences, vocabularies, titles
    metrics.jsonl, checkpoint/, report.json, plots/, index/

What holds of a run folder at any moment, whoever is killed when:

1.  A folder with ``run.json`` is a whole run and answers. One without it but with a checkpoint is an
    unfinished run, which goes on. Anything else is no run: it is never written into, and never removed unless
    all in it is what an earlier start left there and the user said overwrite.
2.  A whole run does not change until its successor is whole. The successor is trained beside it, in a hidden
    folder on the same disk, and the two are exchanged in one step. A new run appears under its name with its
    first checkpoint, and grows there.
3.  Everything is checked before anything is written: settings, device, data, targets to learn from. A refused
    call changes no byte.
4.  Only what a run is made of is ever removed (`layout.PARTS`). A folder with anything else in it is not
    overwritten; on the way through a resume it is carried along.
5.  A run goes on by its own settings, and refuses others, another encoder and another log, however named.
6.  One process writes at a time: the second is refused in one line. The lock goes with its process.
7.  Report, pictures and index belong to weights. They are kept when the weights stay, and go when these do;
    ``report.json`` says whose it is by ``model_sha256``.
8.  Training that was killed goes on: a new run by resume, a replacement (``.NAME.overwriting``) by overwrite
    and resume together, more epochs of a whole run (``.NAME.resuming``) by resume. Beginning anew discards
    such leftovers; what never reached its first checkpoint is swept by the next writer.

`layout` knows the names, `model` reads and writes configuration and weights, `versions` reads earlier runs,
`writing` holds the lock and exchanges folders, `fitting` trains into one.
"""

from recsys.run_folder.layout import RunFolder
from recsys.run_folder.model import fingerprint, read_run, read_run_and_data, write_config, write_model

__all__ = ["RunFolder", "fingerprint", "read_run", "read_run_and_data", "write_config", "write_model"]
