"""Tables of an event store in Postgres, and the statements that write them."""

from recsys.events.exposures import SKEW

VERSION = 3
"""Of the tables; a later one is refused, an earlier one is brought up to date when it is opened."""

TABLES = (
    "CREATE TABLE recsys_store("
    "one boolean PRIMARY KEY DEFAULT true CHECK (one), identity text NOT NULL,"
    " version integer NOT NULL, last_seq bigint NOT NULL)",
    "CREATE TABLE recsys_events("
    "seq bigint PRIMARY KEY, id text UNIQUE,"
    ' user_id text COLLATE "C" NOT NULL, item_id text NOT NULL, time bigint NOT NULL,'
    " type text, received bigint NOT NULL, request_id text, columns text)",
    "CREATE INDEX recsys_events_of_user ON recsys_events(user_id, seq)",
    'CREATE TABLE recsys_erased(user_id text COLLATE "C" PRIMARY KEY, seq bigint NOT NULL,'
    " time bigint NOT NULL DEFAULT 0)",
    "INSERT INTO recsys_store(identity, version, last_seq)"
    f" VALUES (replace(gen_random_uuid()::text, '-', ''), {VERSION}, 0)",
)

EXPOSURES = (
    "CREATE TABLE recsys_exposures("
    "place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    ' request_id text NOT NULL, user_id text COLLATE "C", model text NOT NULL,'
    " version text NOT NULL, items text NOT NULL, time bigint NOT NULL, shadow boolean NOT NULL)",
    "CREATE INDEX recsys_exposures_of_request ON recsys_exposures(request_id)",
    "CREATE INDEX recsys_exposures_of_user ON recsys_exposures(user_id)",
)

UP_TO_DATE = (
    "ALTER TABLE recsys_erased ADD COLUMN IF NOT EXISTS time bigint NOT NULL DEFAULT 0",
    "ALTER TABLE recsys_events ADD COLUMN IF NOT EXISTS columns text",
    f"UPDATE recsys_store SET version = {VERSION}",
)
"""What brings the tables of versions 1 and 2 up to date, beside exposures where it has none."""

GIVE_PLACES = "UPDATE recsys_store SET last_seq = last_seq + %s RETURNING last_seq"

INSERT = (
    "INSERT INTO recsys_events(seq, id, user_id, item_id, time, type, received, request_id, columns)"
    " SELECT seq, id, user_id, item_id, time, type, received, request_id, columns FROM ("
    "SELECT unnest(%s::bigint[]) seq, unnest(%s::text[]) id, unnest(%s::text[]) user_id,"
    " unnest(%s::text[]) item_id, unnest(%s::bigint[]) time, unnest(%s::text[]) type,"
    " %s::bigint received, unnest(%s::text[]) request_id, unnest(%s::text[]) columns) given"
    " ORDER BY seq ON CONFLICT (id) DO NOTHING RETURNING seq"
)

RESERVE = "UPDATE recsys_store SET last_seq = greatest(last_seq, %s)"

ONE_AT_A_TIME = "SELECT 1 FROM recsys_store FOR SHARE"
"""Waits for an erasure that has begun: what is read after it knows of it."""

EXPOSE = (
    "INSERT INTO recsys_exposures(request_id, user_id, model, version, items, time, shadow)"
    " SELECT request_id, user_id, model, version, items, time, shadow"
    " FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::boolean[])"
    " WITH ORDINALITY AS given(request_id, user_id, model, version, items, time, shadow, row)"
    " WHERE NOT EXISTS (SELECT 1 FROM recsys_erased erased"
    f" WHERE erased.user_id = given.user_id AND erased.time > given.time - {SKEW})"
    " ORDER BY given.row"
)

FORGET = "DELETE FROM recsys_exposures WHERE place <= (SELECT max(place) FROM recsys_exposures) - %s"

ERASE = (
    "INSERT INTO recsys_erased(user_id, seq, time) VALUES (%s, %s, extract(epoch FROM now())::bigint)"
    " ON CONFLICT (user_id) DO UPDATE SET seq = excluded.seq, time = excluded.time"
)
