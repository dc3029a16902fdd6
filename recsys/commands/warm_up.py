"""`recsys warm-up`: a run's answers once, so that what they compile is kept on disk."""

import time
from typing import TYPE_CHECKING

from recsys.commands.output import AsJson, Backend, Run, print_json, say, tell

if TYPE_CHECKING:
    from recsys.recommender import Recommender

_USERS = 64
"""Of one batch: scoring many at once takes other compiled loops than one request."""


def warm_up(run: Run, backend: Backend = "auto", as_json: AsJson = False) -> None:
    """Compile what the answers of a run need, so that the first request does not wait for it."""
    from recsys.diagnosis.environment import compiled_code_folder
    from recsys.recommender import Recommender

    began = time.perf_counter()
    answered = _answer(Recommender.load(run, device="cpu", backend=backend))
    seconds = time.perf_counter() - began
    folder = compiled_code_folder()
    if folder is None:
        say("Warning: compiled code can be kept nowhere; set RECSYS_CACHE to a folder that can be written")
    if as_json:
        print_json({"seconds": seconds, "answered": answered, "compiled_code_is_kept": folder is not None})
    else:
        tell(f"Answered in {seconds:.1f} s: {', '.join(answered)}")


def _answer(model: "Recommender") -> list[str]:
    """Ask once for everything that a service asks for; return what was asked."""
    from recsys.datasets.prepared.vocabulary import item_vocabulary, user_vocabulary

    store = model.store_
    users = user_vocabulary(store).decode(range(min(_USERS, store.n_users))).to_list()
    items = item_vocabulary(store).decode(range(min(5, store.n_items))).to_list()
    model.recommend(users=users[:1])
    model.recommend(users=users)
    model.recommend(users=users[:1], exclude_seen=False)
    model.recommend(users=users[:1], allow=items)
    model.recommend(users=users[:1], deny=items[:1])
    model.recommend(users=users[:1], interests=2)
    model.similar_items(items[:1])
    model.live_users().recommend(users[:1])
    kinds = ("seen items kept", "allowed", "denied", "interests", "similar items", "live users")
    return ["one user", f"{len(users)} users", *kinds]
