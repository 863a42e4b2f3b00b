"""The tables. Numbered migrations, never edited after a release."""

from __future__ import annotations

APPLICATION_ID = 0x77697365  # "wise"

M001_CREATE = """
CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('feed', 'log')),
    location TEXT NOT NULL,
    tier TEXT NOT NULL CHECK (tier IN ('trusted', 'normal', 'untrusted')),
    state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused', 'gone', 'removed')),
    allow_private INTEGER NOT NULL DEFAULT 0,
    etag TEXT,
    last_modified TEXT,
    log_offset INTEGER,
    log_fingerprint TEXT,
    next_poll_at TEXT NOT NULL,
    last_ok_at TEXT,
    failures INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL REFERENCES source(id),
    key TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    title TEXT NOT NULL,
    link TEXT,
    published_at TEXT,
    received_at TEXT NOT NULL,
    raw TEXT NOT NULL,
    UNIQUE (source_id, key, content_hash)
) STRICT;

CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL REFERENCES source(id),
    location TEXT NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    raw TEXT NOT NULL,
    received_at TEXT NOT NULL,
    UNIQUE (source_id, code, raw)
) STRICT;

CREATE TABLE batch (
    id INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('building', 'built', 'failed')),
    attempts INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    created_at TEXT NOT NULL
) STRICT;

CREATE TABLE fact (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    relation TEXT NOT NULL,
    object TEXT NOT NULL,
    prompts TEXT NOT NULL,
    held_out TEXT NOT NULL,
    slot_key TEXT NOT NULL,
    fact_key TEXT NOT NULL,
    tier TEXT NOT NULL,
    extractor TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'received', 'duplicate', 'known', 'conflicting', 'quarantined', 'pending',
        'approved', 'batched', 'edited', 'verified', 'promoted', 'superseded',
        'retracted', 'rejected', 'failed'
    )),
    reason TEXT NOT NULL DEFAULT '',
    rev INTEGER NOT NULL DEFAULT 1,
    asserted_at TEXT NOT NULL,
    received_at TEXT NOT NULL,
    same_as INTEGER REFERENCES fact(id),
    batch_id INTEGER REFERENCES batch(id),
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX fact_by_state ON fact(state);
CREATE INDEX fact_by_slot ON fact(slot_key);
CREATE INDEX fact_by_key ON fact(fact_key);
CREATE INDEX fact_by_batch ON fact(batch_id);

CREATE TABLE evidence (
    fact_id INTEGER NOT NULL REFERENCES fact(id),
    entry_id INTEGER NOT NULL REFERENCES entry(id),
    quote TEXT NOT NULL,
    PRIMARY KEY (fact_id, entry_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX evidence_by_entry ON evidence(entry_id);

CREATE TABLE embedding (
    fact_id INTEGER PRIMARY KEY REFERENCES fact(id),
    model TEXT NOT NULL,
    vector BLOB NOT NULL
) STRICT;

CREATE TABLE release (
    number INTEGER PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN (
        'building', 'candidate', 'verified', 'promoted', 'previous', 'retained',
        'refused', 'pruned'
    )),
    folder TEXT,
    parent INTEGER REFERENCES release(number),
    batch_id INTEGER REFERENCES batch(id),
    manifest_sha256 TEXT,
    measures TEXT NOT NULL DEFAULT '{}',
    reason TEXT NOT NULL DEFAULT '',
    pinned INTEGER NOT NULL DEFAULT 0,
    rev INTEGER NOT NULL DEFAULT 1,
    created_at TEXT NOT NULL,
    promoted_at TEXT
) STRICT;
CREATE UNIQUE INDEX one_promoted ON release(state) WHERE state = 'promoted';
CREATE UNIQUE INDEX one_previous ON release(state) WHERE state = 'previous';

CREATE TABLE release_fact (
    release INTEGER NOT NULL REFERENCES release(number),
    position INTEGER NOT NULL,
    fact_id INTEGER NOT NULL REFERENCES fact(id),
    PRIMARY KEY (release, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX release_by_fact ON release_fact(fact_id);

CREATE TABLE hold (
    kind TEXT PRIMARY KEY CHECK (kind IN ('ingest', 'edit', 'promote')),
    reason TEXT NOT NULL,
    since TEXT NOT NULL
) STRICT;

CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    data TEXT NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX event_by_subject ON event(subject);
CREATE TRIGGER event_is_append_only_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'event is append-only'); END;
CREATE TRIGGER event_is_append_only_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'event is append-only'); END;
"""

#: what it takes to make a release again, and which of its shards holds each fact
M002_LEDGER = """
CREATE TABLE settings (
    sha256 TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE release ADD COLUMN kind TEXT NOT NULL DEFAULT 'update'
    CHECK (kind IN ('update', 'compaction', 'emergency'));
ALTER TABLE release ADD COLUMN rewritten TEXT NOT NULL DEFAULT '[]';
ALTER TABLE release ADD COLUMN last_fact INTEGER;
ALTER TABLE release ADD COLUMN settings TEXT REFERENCES settings(sha256);

ALTER TABLE release_fact ADD COLUMN shard INTEGER;

CREATE TABLE shard (
    release INTEGER NOT NULL REFERENCES release(number),
    position INTEGER NOT NULL,
    made_in INTEGER NOT NULL REFERENCES release(number),
    solved INTEGER NOT NULL CHECK (solved >= 0),
    fullness REAL NOT NULL CHECK (fullness >= 0),
    PRIMARY KEY (release, position)
) STRICT, WITHOUT ROWID;
"""

#: how a log's rows are written, and what tells its file again
M003_LOG_FORMATS = """
ALTER TABLE source ADD COLUMN format TEXT NOT NULL DEFAULT 'auto';
ALTER TABLE source ADD COLUMN log_tail TEXT;
ALTER TABLE source ADD COLUMN log_inode TEXT;
"""

#: what was embedded, so that the same text is not embedded again
M004_EMBEDDED_TEXTS = """
ALTER TABLE embedding ADD COLUMN text_key TEXT;
CREATE INDEX embedding_by_text ON embedding(text_key);
"""

#: the private networks of a source, a whole answer once a day, and where a feed says it has moved
M005_FETCHING = """
ALTER TABLE source ADD COLUMN allowed TEXT NOT NULL DEFAULT '';
UPDATE source SET allowed = 'any' WHERE allow_private != 0;
ALTER TABLE source DROP COLUMN allow_private;
ALTER TABLE source RENAME COLUMN allowed TO allow_private;
ALTER TABLE source ADD COLUMN last_full_at TEXT;
ALTER TABLE source ADD COLUMN moved_to TEXT;
ALTER TABLE source ADD COLUMN moved_polls INTEGER NOT NULL DEFAULT 0;
"""

#: facts dropped over a quota, and whose quota a fact counts against; the table is made anew
#: because its list of states can't be altered
M006_QUOTAS = """
CREATE TABLE fact_anew (
    id INTEGER PRIMARY KEY,
    subject TEXT NOT NULL,
    relation TEXT NOT NULL,
    object TEXT NOT NULL,
    prompts TEXT NOT NULL,
    held_out TEXT NOT NULL,
    slot_key TEXT NOT NULL,
    fact_key TEXT NOT NULL,
    tier TEXT NOT NULL,
    extractor TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'received', 'duplicate', 'known', 'conflicting', 'quarantined', 'pending',
        'approved', 'batched', 'edited', 'verified', 'promoted', 'superseded',
        'retracted', 'rejected', 'failed', 'dropped'
    )),
    reason TEXT NOT NULL DEFAULT '',
    rev INTEGER NOT NULL DEFAULT 1,
    asserted_at TEXT NOT NULL,
    received_at TEXT NOT NULL,
    same_as INTEGER REFERENCES fact(id),
    batch_id INTEGER REFERENCES batch(id),
    attempts INTEGER NOT NULL DEFAULT 0,
    brought_by INTEGER REFERENCES source(id),
    vouched_by INTEGER REFERENCES source(id)
) STRICT;
INSERT INTO fact_anew (
    id, subject, relation, object, prompts, held_out, slot_key, fact_key, tier, extractor,
    state, reason, rev, asserted_at, received_at, same_as, batch_id, attempts,
    brought_by, vouched_by
) SELECT
    id, subject, relation, object, prompts, held_out, slot_key, fact_key, tier, extractor,
    state, reason, rev, asserted_at, received_at, same_as, batch_id, attempts,
    (SELECT iif(name = 'operator', NULL, source.id) FROM evidence
        JOIN entry ON entry.id = entry_id JOIN source ON source.id = source_id
        WHERE fact_id = fact.id
        ORDER BY entry_id LIMIT 1),
    (SELECT iif(name = 'operator', NULL, source.id) FROM evidence
        JOIN entry ON entry.id = entry_id JOIN source ON source.id = source_id
        WHERE fact_id = fact.id
        ORDER BY CASE source.tier WHEN 'trusted' THEN 0 WHEN 'normal' THEN 1 ELSE 2 END, entry_id
        LIMIT 1)
FROM fact;
DROP TABLE fact;
ALTER TABLE fact_anew RENAME TO fact;
CREATE INDEX fact_by_state ON fact(state);
CREATE INDEX fact_by_slot ON fact(slot_key);
CREATE INDEX fact_by_key ON fact(fact_key);
CREATE INDEX fact_by_batch ON fact(batch_id);
CREATE INDEX fact_by_source ON fact(brought_by, received_at);
CREATE INDEX fact_undecided ON fact(vouched_by, state)
    WHERE state IN ('received', 'pending', 'conflicting', 'quarantined');

CREATE TABLE dropped (
    id INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL REFERENCES source(id),
    quota TEXT NOT NULL,
    facts INTEGER NOT NULL CHECK (facts > 0),
    at TEXT NOT NULL
) STRICT;
CREATE INDEX dropped_by_source ON dropped(source_id, at);
CREATE INDEX dropped_by_time ON dropped(at);
"""

#: entries whose text a language model is still to read
M007_READING = """
CREATE TABLE unread (
    entry_id INTEGER PRIMARY KEY REFERENCES entry(id),
    text TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at TEXT NOT NULL
) STRICT;
CREATE INDEX unread_by_time ON unread(next_at);
"""

#: what the keys of facts are made with; no row: nothing that is known
M008_NAMES = """
CREATE TABLE keying (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    made_with TEXT NOT NULL
) STRICT;
"""

#: a batch whose worker died is tried again, and taken apart: `daemon/attempts.py`
M009_ATTEMPTS = """
ALTER TABLE batch ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN next_attempt_at TEXT;
ALTER TABLE batch ADD COLUMN split_from INTEGER REFERENCES batch(id);
CREATE INDEX batch_waiting ON batch(next_attempt_at) WHERE next_attempt_at IS NOT NULL;
"""

#: when each part of the daemon last moved, and what polls came to: figures that outlive a restart
M010_VITAL_SIGNS = """
CREATE TABLE heartbeat (
    part TEXT PRIMARY KEY,
    at TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE poll_tally (
    source_id INTEGER NOT NULL REFERENCES source(id),
    code TEXT NOT NULL,
    polls INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (source_id, code)
) STRICT, WITHOUT ROWID;
"""

#: releases that a person let pass a hold; the facts that say the same as another
M011_CLI = """
CREATE INDEX fact_promoted ON fact(slot_key) WHERE state = 'promoted';
CREATE INDEX fact_by_same ON fact(same_as) WHERE same_as IS NOT NULL;
ALTER TABLE release ADD COLUMN approved INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1));
"""

#: the latest time at which a fact counts as received, before which no later one may
M012_RECEIVED = """
CREATE INDEX fact_by_receipt ON fact(received_at);
"""

#: candidates whose worker died at work; entries whose text may go, and letters that went
M013_RETENTION = """
ALTER TABLE release ADD COLUMN died INTEGER NOT NULL DEFAULT 0 CHECK (died IN (0, 1));
CREATE INDEX entry_with_text ON entry(received_at) WHERE raw != '';
CREATE INDEX dead_letter_by_source ON dead_letter(source_id);
ALTER TABLE source ADD COLUMN letters_dropped INTEGER NOT NULL DEFAULT 0;
"""

#: statement scripts in order; the schema's version is how many of them have run
MIGRATIONS: tuple[str, ...] = (
    M001_CREATE,
    M002_LEDGER,
    M003_LOG_FORMATS,
    M004_EMBEDDED_TEXTS,
    M005_FETCHING,
    M006_QUOTAS,
    M007_READING,
    M008_NAMES,
    M009_ATTEMPTS,
    M010_VITAL_SIGNS,
    M011_CLI,
    M012_RECEIVED,
    M013_RETENTION,
)
