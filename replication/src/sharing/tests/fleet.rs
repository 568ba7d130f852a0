//! A master and its devices in memory, with short ways to say what tests are about.

use mfpsync_storage::Inline;
use mfpsync_storage::local::{EditContext, Local, LocalEdit, LocalWrite, Membership, RetainedLimits};
use mfpsync_storage::master::{Founding, Master};
use mfpsync_storage::model::{
    Action, Capabilities, ChangeBatch, Cursor, Epoch, GroupId, Incarnation, IssuingCertificate, Member,
    Outcome, Promotion, PromotionReason, PublicKey, Sequence, Signed, Value,
};

use super::super::*;
use crate::accept::{Answer, Limits, Submission, Usage, accept};

const GROUP: GroupId = GroupId([7; 16]);
/// Values of a step: enough for several items of three devices, not for all.
const SOME_VALUES: usize = 64;
const EPOCH: Epoch = Epoch { number: 1, nonce: [9; 16] };
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const C: usize = 2;

pub(super) fn id(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 16])
}

pub(super) fn kind(name: &str) -> Kind {
    Kind::parse(name).unwrap()
}

pub(super) fn key(kind: &str, id: &str) -> ItemKey {
    ItemKey::parse("user/sato", kind, "", id).unwrap()
}

pub(super) fn texts(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, text)| (*name, Value::Text((*text).to_owned()))).collect()
}

fn signed<T>(record: T, body: Vec<u8>) -> Signed<T> {
    Signed { record, body, signature: [0; 64] }
}

pub(super) fn member(device: DeviceId, released: bool) -> Signed<Member> {
    let member = Member {
        group: GROUP,
        device,
        public_key: PublicKey([device.0[0]; 32]),
        name: format!("printer {}", device.0[0]),
        capabilities: Capabilities::CLIENT,
        released,
        version: u64::from(released) + 1,
        endpoints: Vec::new(),
        issuer: id(A),
    };
    let body = member.body();
    signed(member, body)
}

fn founding() -> Founding {
    let promotion = Promotion {
        group: GROUP,
        epoch: EPOCH,
        parent: None,
        ends: Vec::new(),
        device: id(A),
        operator: "admin".to_owned(),
        reason: PromotionReason::Founded,
        made_at: 0,
    };
    let issuer = IssuingCertificate { group: GROUP, device: id(A), public_key: PublicKey([2; 32]) };
    Founding {
        group_name: "third floor".to_owned(),
        root_key: PublicKey([3; 32]),
        promotion: signed(promotion.clone(), promotion.body()),
        issuer: signed(issuer.clone(), issuer.body()),
        member: member(id(A), false),
    }
}

/// A master and its devices.
pub(super) struct Fleet {
    pub master: Inline<Master>,
    pub devices: Vec<Inline<Local>>,
    pub usage: Usage,
    /// Bytes of one batch: small ones cut a switch into many.
    pub batch: usize,
}

impl Fleet {
    pub(super) fn of(devices: usize) -> Self {
        let mut master: Inline<Master> = Inline::in_memory().unwrap();
        master.write(|write| write.found(&founding())).unwrap();
        let mut fleet = Self { master, devices: Vec::new(), usage: Usage::default(), batch: 1 << 20 };
        (0..devices).for_each(|_| fleet.arrives(&[]));
        fleet
    }

    /// One more device joins, with items of its own.
    pub(super) fn arrives(&mut self, own: &[(ItemKey, Fields)]) {
        let device = self.devices.len();
        let mut database: Inline<Local> = Inline::in_memory().unwrap();
        let life = Incarnation(100 + device as u64);
        database.write(|write: &LocalWrite<'_>| write.initialise(life, id(device))).unwrap();
        for (key, fields) in own {
            let edit = LocalEdit { key: key.clone(), action: Action::Put(fields.clone()) };
            database.write(|write: &LocalWrite<'_>| write.edit(vec![edit.clone()], &context())).unwrap();
        }
        let membership =
            Membership { group: GROUP, group_name: "third floor".to_owned(), root_key: PublicKey([3; 32]) };
        database.write(|write: &LocalWrite<'_>| write.join(&membership, life, None)).unwrap();
        self.master.write(|write| write.put_member(&member(id(device), false))).unwrap();
        self.devices.push(database);
        self.pull(device);
        let policies = crate::join::Policies::default();
        self.devices[device].write(|write| crate::join::accept(write, &policies, None, 1)).unwrap();
        self.sync(device);
    }

    pub(super) fn edit(&mut self, device: usize, key: &ItemKey, action: Action) {
        let edit = LocalEdit { key: key.clone(), action };
        self.devices[device].write(|write| write.edit(vec![edit.clone()], &context())).unwrap();
    }

    pub(super) fn put(&mut self, device: usize, key: &ItemKey, pairs: &[(&str, &str)]) {
        self.edit(device, key, Action::Put(texts(pairs)));
    }

    pub(super) fn patch(&mut self, device: usize, key: &ItemKey, pairs: &[(&str, &str)]) {
        self.edit(device, key, Action::Patch { set: texts(pairs), remove: Vec::new() });
    }

    /// Everything that waits goes to the server, and the answers come back.
    pub(super) fn push(&mut self, device: usize) -> Vec<Outcome> {
        let own = &mut self.devices[device];
        let (state, records) =
            own.read(|read| Ok((read.device()?, read.outbox(usize::MAX >> 1, usize::MAX)?))).unwrap();
        let submission = Submission {
            device: id(device),
            incarnation: state.incarnation,
            low_water: state.low_water,
            operations: records.into_iter().map(|(_, record)| record).collect(),
            now: 2_000,
        };
        let answer = self
            .master
            .write(|write| accept(write, &mut self.usage, &submission, Limits::default()))
            .unwrap();
        let Answer::Outcomes(outcomes) = answer else { panic!("refused: {answer:?}") };
        own.write(|write| write.settle(&outcomes, 3_000, RetainedLimits::default())).unwrap();
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// One batch; false when there was none.
    pub(super) fn pull_batch(&mut self, device: usize) -> bool {
        let own = &mut self.devices[device];
        let cursor = own.read(|read| read.device()).unwrap().cursor;
        let after = cursor.map_or(Sequence::ZERO, |cursor| cursor.sequence);
        let (changes, cursor) = self
            .master
            .read(|read| {
                let changes = read.changes_after(after, self.batch)?;
                let chain = read.chain_at(changes.through)?.unwrap();
                let cursor = Cursor { group: GROUP, epoch: EPOCH, sequence: changes.through, chain };
                Ok((changes, cursor))
            })
            .unwrap();
        let bytes = changes.batch.finish();
        own.write(|write| write.apply_changes(&ChangeBatch::decode(&bytes)?, &cursor)).unwrap();
        cursor.sequence > after
    }

    pub(super) fn pull(&mut self, device: usize) {
        while self.pull_batch(device) {}
    }

    pub(super) fn sync(&mut self, device: usize) -> Vec<Outcome> {
        let outcomes = self.push(device);
        self.pull(device);
        outcomes
    }

    pub(super) fn sync_all(&mut self) {
        for _ in 0..2 {
            (0..self.devices.len()).for_each(|device| drop(self.sync(device)));
        }
    }

    pub(super) fn plan(&self, kind: &str, to: Target) -> Option<Plan> {
        let order = Order { kind: self::kind(kind), to };
        self.master.read(|read| plan(read, &order, true)).unwrap()
    }

    /// Begins a switch as it was planned, or as it is planned now, with a step of `values` values.
    pub(super) fn begin(&mut self, kind: &str, to: Target, planned: Option<&Plan>, values: usize) -> Begun {
        let order = Order { kind: self::kind(kind), to };
        let exactly = planned.is_some();
        let Some(plan) = planned.cloned().or_else(|| self.plan(kind, to)) else { return Begun::Already };
        self.master.write(|write| begin(write, &operator(), &order, &plan, exactly, values)).unwrap()
    }

    /// Carries on the switch that is under way; none when there is none.
    pub(super) fn step(&mut self, values: usize) -> Option<Step> {
        self.master.write(|write| step(write, &operator(), values)).unwrap()
    }

    /// The whole switch, in which nothing else happens; it does what was planned.
    pub(super) fn switch(&mut self, kind: &str, to: Target) -> Plan {
        let plan = self.plan(kind, to).unwrap();
        let mut step = match self.begin(kind, to, Some(&plan), SOME_VALUES) {
            Begun::Stepped(step) => step,
            other => panic!("not switched: {other:?}"),
        };
        while !step.ended {
            step = self.step(SOME_VALUES).unwrap();
        }
        assert_eq!((step.switching.tally, step.switching.expected), (plan.tally, plan.tally.items));
        assert_eq!(self.step(SOME_VALUES), None);
        plan
    }

    pub(super) fn item(&self, device: usize, key: &ItemKey) -> Option<(String, Fields)> {
        let item = self.devices[device].read(|read| read.item(key)).unwrap();
        item.map(|item| (item.key.device, item.fields))
    }

    /// A text as the device's readers see it.
    pub(super) fn sees(&self, device: usize, key: &ItemKey, field: &str) -> Option<String> {
        match self.item(device, key)?.1.get(field) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn set_aside(&self, device: usize) -> usize {
        self.devices[device].read(|read| read.set_aside(u32::MAX)).unwrap().len()
    }

    /// Every mirror holds what the master holds.
    pub(super) fn agrees(&self) {
        let master = self.master.read(|read| read.content_hashes()).unwrap();
        for device in &self.devices {
            assert_eq!(device.read(|read| read.mirror_hashes()).unwrap(), master);
        }
    }
}

pub(super) fn operator() -> Operator {
    Operator { server: id(A), actor: "admin".to_owned(), now: 5_000, keep_values: true }
}

pub(super) fn context() -> EditContext {
    EditContext { actor: "sato".to_owned(), now: 1_000, limits: None }
}
