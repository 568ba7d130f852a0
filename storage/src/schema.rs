//! The schemas, as numbered forward-only steps. A step that was released never changes.

use crate::open::FileKind;

/// The group's master database: `application_id` is "MFPm".
pub(crate) const MASTER: FileKind = FileKind { application_id: 0x4d46_506d, migrations: &[MASTER_1] };

/// A device's own database: `application_id` is "MFPl".
pub(crate) const LOCAL: FileKind = FileKind { application_id: 0x4d46_506c, migrations: &[LOCAL_1] };

/// A row's position is its sequence and, in the low twelve bits, its place among the items of one
/// operation: the rowid then gives changes in order by one sequential scan, and an operation of
/// several items keeps one sequence. An update moves the row to its new position; each change names
/// the position before, so that an item's history is followed without an index. `superseded` holds
/// edits of which nothing was taken, each behind the sequence after which it came; its numbers never
/// come twice, because `marks` name them: how far both reached at the end of each day of running, which
/// `head.hours_run` counts. `ledger` has one
/// short row for each incarnation, which each of its pushes rewrites, and more while little is confirmed.
/// `switching` has a row while the sharing of a kind is being switched.
const MASTER_1: &str = "
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    group_id BLOB NOT NULL,
    group_name TEXT NOT NULL,
    root_key BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    nonce BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    chain BLOB NOT NULL,
    items INTEGER NOT NULL,
    tombstone_floor INTEGER NOT NULL,
    hours_run INTEGER NOT NULL
);
CREATE TABLE marks (day INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, superseded INTEGER NOT NULL);
CREATE TABLE items (
    position INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    fields BLOB NOT NULL,
    field_sequences BLOB NOT NULL,
    UNIQUE (scope, kind, device, id)
);
CREATE TABLE changes (
    position INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    author BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    operation INTEGER NOT NULL,
    actor TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    chain BLOB NOT NULL,
    deleted INTEGER NOT NULL,
    touched BLOB NOT NULL,
    prior_position INTEGER,
    prior_deleted INTEGER,
    prior_fields BLOB,
    lost_fields BLOB
);
CREATE TABLE superseded (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    author BLOB NOT NULL,
    incarnation INTEGER NOT NULL,
    operation INTEGER NOT NULL,
    actor TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    after_sequence INTEGER NOT NULL,
    by_sequence INTEGER NOT NULL,
    lost_fields BLOB NOT NULL
);
CREATE TABLE ledger (
    incarnation INTEGER NOT NULL,
    block INTEGER NOT NULL,
    device BLOB NOT NULL,
    confirmed INTEGER NOT NULL,
    entries BLOB NOT NULL,
    PRIMARY KEY (incarnation, block)
) WITHOUT ROWID;
CREATE TABLE lineage (number INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE issuers (device BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE members (device BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE replication (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    device BLOB NOT NULL,
    durability INTEGER NOT NULL
);
CREATE TABLE unprotected (
    after_sequence INTEGER PRIMARY KEY,
    through_sequence INTEGER,
    began_at INTEGER NOT NULL
);
CREATE TABLE succession (id INTEGER PRIMARY KEY CHECK (id = 1), known_sequence INTEGER NOT NULL);
CREATE TABLE offered (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    was INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (scope, kind, device, id)
) WITHOUT ROWID;
CREATE TABLE reports (device BLOB PRIMARY KEY, held BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE switching (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    kind TEXT NOT NULL,
    target INTEGER NOT NULL,
    device BLOB,
    actor TEXT NOT NULL,
    began INTEGER NOT NULL,
    through_scope TEXT NOT NULL,
    through_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    expected INTEGER NOT NULL,
    tally BLOB NOT NULL
);
CREATE TABLE progress (
    device BLOB PRIMARY KEY,
    incarnation INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    quarantined INTEGER NOT NULL
) WITHOUT ROWID;
";

/// `items` holds two states side by side: the mirror (as last agreed with the server) and, where it
/// differs, the local one that readers see. An item may have two rows, the shared one (`device` empty)
/// and this device's (`device` as `device.own_id`); `local/place.rs` says which one shows. `settled_at` and `settled_by` name the latest accepted
/// operation whose result the mirror has not shown yet. While the device is joining (`membership.phase`
/// 0) the local states are its own items and the mirror is not shown; `joined`, `kept_own` and
/// `join_edits` hold what takes a join back. Outside of a group, `parted_fields` is what the group
/// `device.parted_from` last had, so that a return offers only what was edited since. `device` counts
/// what `outbox` and `retained` hold, so that an edit costs the same however much waits.
const LOCAL_1: &str = "
CREATE TABLE device (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    own_id TEXT NOT NULL,
    incarnation INTEGER NOT NULL,
    last_operation INTEGER NOT NULL,
    low_water INTEGER NOT NULL,
    cursor BLOB,
    generation INTEGER NOT NULL,
    resetting INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    retained INTEGER NOT NULL DEFAULT 0,
    retained_bytes INTEGER NOT NULL DEFAULT 0,
    retained_dropped INTEGER NOT NULL DEFAULT 0,
    followed INTEGER NOT NULL DEFAULT 0,
    report BLOB,
    parted_from BLOB
);
CREATE TABLE membership (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    group_id BLOB NOT NULL,
    group_name TEXT NOT NULL,
    root_key BLOB NOT NULL,
    phase INTEGER NOT NULL,
    wishes BLOB
);
CREATE TABLE joined (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL, hours_run INTEGER NOT NULL,
    parted_from BLOB);
CREATE TABLE kept_own (
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    fields BLOB NOT NULL,
    parted_fields BLOB,
    PRIMARY KEY (scope, kind, device, id)
) WITHOUT ROWID;
CREATE TABLE join_edits (
    number INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    before BLOB,
    after BLOB NOT NULL
);
CREATE TABLE lineage (number INTEGER PRIMARY KEY, record BLOB NOT NULL);
CREATE TABLE issuers (device BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE members (device BLOB PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
    number INTEGER PRIMARY KEY,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    mirror_sequence INTEGER,
    mirror_deleted INTEGER,
    mirror_fields BLOB,
    generation INTEGER NOT NULL,
    local_deleted INTEGER,
    local_fields BLOB,
    settled_at INTEGER,
    settled_by INTEGER,
    parted_fields BLOB,
    UNIQUE (scope, kind, device, id)
);
CREATE INDEX items_settled_at ON items (settled_at) WHERE settled_at IS NOT NULL;
CREATE INDEX items_settled_by ON items (settled_by) WHERE settled_by IS NOT NULL;
CREATE TABLE outbox (
    operation INTEGER PRIMARY KEY,
    builds_on INTEGER NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX outbox_builds_on ON outbox (builds_on);
CREATE TABLE outbox_items (
    item INTEGER NOT NULL REFERENCES items (number),
    operation INTEGER NOT NULL,
    PRIMARY KEY (item, operation)
) WITHOUT ROWID;
CREATE TABLE retained (
    operation INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (incarnation, operation)
) WITHOUT ROWID;
CREATE INDEX retained_sequence ON retained (sequence);
CREATE TABLE set_aside (
    number INTEGER PRIMARY KEY,
    operation INTEGER NOT NULL,
    outcome BLOB NOT NULL,
    record BLOB NOT NULL,
    noticed_at INTEGER NOT NULL
);
CREATE TABLE acknowledged (
    scope TEXT NOT NULL,
    notice BLOB NOT NULL,
    PRIMARY KEY (scope, notice)
) WITHOUT ROWID;
";
