//! A device and a master in memory, with short ways to say what tests are about.

use mfpsync_storage::local::{
    EditContext, ItemState, Local, LocalEdit, Membership, OutboxLimits, RetainedLimits, Settlement,
};
use mfpsync_storage::master::{Author, Founding, ItemWrite, Master};
use mfpsync_storage::model::{
    Action, Capabilities, Chain, Change, ChangeBatch, Cursor, DeviceId, EditOutcome, Epoch, Fields, GroupId,
    Incarnation, IssuingCertificate, ItemKey, Member, Operation, OperationNumber, Outcome, Promotion,
    PromotionReason, PublicKey, RejectReason, Revision, Sequence, Signed, Value,
};
use mfpsync_storage::{Database, FileKind, Inline};
use rusqlite::Connection;

pub(crate) const GROUP: GroupId = GroupId([7; 16]);
pub(crate) const EPOCH: Epoch = Epoch { number: 1, nonce: [9; 16] };

/// Ends a test that cannot be made here: quietly, unless `MFPSYNC_NO_SKIP` asks for every proof.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MFPSYNC_NO_SKIP").is_none_or(|set| set != "1"), "not proven: {why}");
    println!("skipped: {why}");
}

/// A database whose users see the connection itself.
pub(crate) struct Bare;

impl Database for Bare {
    const KIND: FileKind = FileKind {
        application_id: 0x4d46_5054,
        migrations: &["CREATE TABLE kept (number INTEGER PRIMARY KEY, text TEXT)"],
    };
    type Read<'c> = &'c Connection;
    type Write<'c> = &'c Connection;

    fn read(connection: &Connection) -> &Connection {
        connection
    }

    fn write(connection: &Connection) -> &Connection {
        connection
    }
}

pub(crate) fn key(id: &str) -> ItemKey {
    ItemKey::parse("user/sato", "ui.language", "", id).unwrap()
}

pub(crate) fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, text)| (*name, Value::Text((*text).to_owned()))).collect()
}

pub(crate) fn put(id: &str, pairs: &[(&str, &str)]) -> LocalEdit {
    LocalEdit { key: key(id), action: Action::Put(fields(pairs)) }
}

pub(crate) fn patch(id: &str, pairs: &[(&str, &str)]) -> LocalEdit {
    LocalEdit { key: key(id), action: Action::Patch { set: fields(pairs), remove: Vec::new() } }
}

pub(crate) fn delete(id: &str) -> LocalEdit {
    LocalEdit { key: key(id), action: Action::Delete }
}

pub(crate) fn change(id: &str, sequence: u64, pairs: &[(&str, &str)]) -> Change {
    Change { key: key(id), sequence: Sequence(sequence), deleted: false, fields: fields(pairs) }
}

pub(crate) fn tombstone(id: &str, sequence: u64) -> Change {
    Change { key: key(id), sequence: Sequence(sequence), deleted: true, fields: Fields::new() }
}

pub(crate) fn cursor(sequence: u64) -> Cursor {
    Cursor { group: GROUP, epoch: EPOCH, sequence: Sequence(sequence), chain: Chain([sequence as u8; 32]) }
}

pub(crate) fn revision(sequence: u64) -> Revision {
    Revision { epoch: EPOCH.number, sequence: Sequence(sequence) }
}

pub(crate) fn accepted(number: u64, sequence: u64) -> (OperationNumber, Outcome) {
    let edits = vec![EditOutcome::Applied];
    (OperationNumber(number), Outcome::Accepted { revision: revision(sequence), edits })
}

pub(crate) fn superseded(number: u64, sequence: u64, by: u64) -> (OperationNumber, Outcome) {
    let edits = vec![EditOutcome::Superseded { by: revision(by), fields: Vec::new() }];
    (OperationNumber(number), Outcome::Accepted { revision: revision(sequence), edits })
}

pub(crate) fn rejected(number: u64) -> (OperationNumber, Outcome) {
    (OperationNumber(number), Outcome::Rejected { reason: RejectReason::OverLimit, edit: 0 })
}

pub(crate) fn membership() -> Membership {
    Membership { group: GROUP, group_name: "third floor".to_owned(), root_key: PublicKey([3; 32]) }
}

pub(crate) fn context() -> EditContext {
    EditContext { actor: "sato".to_owned(), now: 1_000, limits: Some(OutboxLimits::default()) }
}

/// A device's database in memory.
pub(crate) struct Device(pub(crate) Inline<Local>);

impl Device {
    pub(crate) fn alone() -> Self {
        let mut database = Inline::in_memory().unwrap();
        database
            .write(|write: &mfpsync_storage::local::LocalWrite<'_>| {
                write.initialise(Incarnation(11), DeviceId([1; 16]))
            })
            .unwrap();
        Self(database)
    }

    pub(crate) fn in_group() -> Self {
        let mut device = Self::alone();
        device.join();
        device
    }

    pub(crate) fn begin_join(&mut self) {
        self.0.write(|write| write.join(&membership(), Incarnation(12), None)).unwrap();
    }

    /// Joins with nothing to bring in.
    pub(crate) fn join(&mut self) {
        self.begin_join();
        self.0.write(|write| write.enter(2_000)).unwrap();
    }

    pub(crate) fn edit(&mut self, edits: Vec<LocalEdit>) -> Option<u64> {
        self.0.write(|write| write.edit(edits, &context())).unwrap().map(|number| number.0)
    }

    pub(crate) fn apply(&mut self, changes: &[Change], through: u64) -> Vec<ItemKey> {
        self.0.write(|write| write.apply_changes(changes, &cursor(through))).unwrap()
    }

    pub(crate) fn settle(&mut self, outcomes: &[(OperationNumber, Outcome)]) -> Settlement {
        self.0.write(|write| write.settle(outcomes, 3_000, RetainedLimits::default())).unwrap()
    }

    /// A field's text as readers see it; none when the item or the field does not exist.
    pub(crate) fn sees(&self, id: &str, field: &str) -> Option<String> {
        let item = self.0.read(|read| read.item(&key(id))).unwrap()?;
        match item.fields.get(field) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(crate) fn exists(&self, id: &str) -> bool {
        self.0.read(|read| read.item(&key(id))).unwrap().is_some()
    }

    pub(crate) fn state(&self, id: &str) -> Option<ItemState> {
        self.0.read(|read| read.item(&key(id))).unwrap().map(|item| item.state)
    }

    pub(crate) fn outbox(&self) -> Vec<Operation> {
        let records = self.0.read(|read| read.outbox(usize::MAX >> 1, usize::MAX)).unwrap();
        records.iter().map(|(_, record)| Operation::decode(record).unwrap()).collect()
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.0.read(|read| read.waiting()).unwrap().operations
    }

    pub(crate) fn low_water(&self) -> u64 {
        self.0.read(|read| read.device()).unwrap().low_water.0
    }

    pub(crate) fn cursor(&self) -> Option<u64> {
        self.0.read(|read| read.device()).unwrap().cursor.map(|cursor| cursor.sequence.0)
    }
}

/// A founded master in memory.
pub(crate) struct Server(pub(crate) Inline<Master>);

impl Server {
    pub(crate) fn founded() -> Self {
        let mut database = Inline::<Master>::in_memory().unwrap();
        database.write(|write| write.found(&founding())).unwrap();
        Self(database)
    }

    pub(crate) fn accept(&mut self, operation: u64, writes: &[ItemWrite]) -> u64 {
        self.0.write(|write| write.accept(&author(operation), writes)).unwrap().sequence.0
    }

    pub(crate) fn changes(&self, after: u64, limit: usize) -> (Vec<Change>, u64, bool) {
        let read = self.0.read(|read| read.changes_after(Sequence(after), limit)).unwrap();
        let (through, complete) = (read.through.0, read.complete);
        (ChangeBatch::decode(&read.batch.finish()).unwrap(), through, complete)
    }
}

pub(crate) fn author(operation: u64) -> Author {
    Author {
        device: DeviceId([1; 16]),
        incarnation: Incarnation(12),
        operation: OperationNumber(operation),
        actor: "sato".to_owned(),
        made_at: 1_000 + operation,
        accepted_at: 2_000 + operation,
    }
}

pub(crate) fn write(id: &str, pairs: &[(&str, &str)]) -> ItemWrite {
    ItemWrite {
        key: key(id),
        deleted: false,
        fields: fields(pairs),
        touched: pairs.iter().map(|(name, _)| (*name).to_owned()).collect(),
        sequences: None,
        lost: Fields::new(),
        keep_prior: true,
    }
}

pub(crate) fn removal(id: &str) -> ItemWrite {
    ItemWrite {
        key: key(id),
        deleted: true,
        fields: Fields::new(),
        touched: Vec::new(),
        sequences: None,
        lost: Fields::new(),
        keep_prior: true,
    }
}

pub(crate) fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [5; 64] }
}

pub(crate) fn founding() -> Founding {
    let device = DeviceId([1; 16]);
    let promotion = Promotion {
        group: GROUP,
        epoch: EPOCH,
        parent: None,
        ends: Vec::new(),
        device,
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 1_000,
    };
    let issuer = IssuingCertificate { group: GROUP, device, public_key: PublicKey([2; 32]) };
    let member = Member {
        group: GROUP,
        device,
        public_key: PublicKey([4; 32]),
        name: "third floor".to_owned(),
        capabilities: Capabilities::CLIENT.with(Capabilities::SERVE),
        released: false,
        version: 1,
        endpoints: vec!["mfp3.example.com:7420".to_owned()],
        issuer: device,
    };
    Founding {
        group_name: "third floor".to_owned(),
        root_key: PublicKey([3; 32]),
        promotion: signed(promotion.clone(), promotion.body()),
        issuer: signed(issuer.clone(), issuer.body()),
        member: signed(member.clone(), member.body()),
    }
}
