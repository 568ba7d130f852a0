//! What the model knows of a group at one moment: the disks, what processes remember, what is on its way,
//! and, beside that, what only the judge knows. Small and of fixed size: millions of these are kept.

use mfpsync_replication::lineage::Lineage;
use mfpsync_storage::model::{
    Cursor, DeviceId, Epoch, GroupId, Parent, Promotion, PromotionReason, Sequence,
};

use super::guard::Guard;
use super::scope::{Begins, Model};
pub use super::set::{Edits, Ledger, Log, Op, Reigns};

pub const GROUP: GroupId = GroupId([7; 16]);
/// Edits a run may make at the most.
pub const EDITS: usize = 3;
/// Reigns a run may see at the most, the first included.
pub const REIGNS: usize = 6;

/// A reign, by its place in [`State::reigns`].
pub type Reign = u8;
/// An edit, by its place in [`State::edits`].
pub type Edit = u8;

/// A machine that may come to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// The server at the beginning.
    Server,
    /// Its replica.
    Replica,
    /// A machine from outside.
    Spare,
    /// One that was in its place before, and is lost.
    Gone,
}

impl Who {
    pub const ALL: [Self; 3] = [Self::Server, Self::Replica, Self::Spare];
}

/// A master database, or a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Db {
    pub reign: Reign,
    pub log: Log,
    pub ledger: Ledger,
    /// The device that is the replica.
    pub replica: Option<Who>,
}

/// A promotion record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Record {
    pub number: u8,
    pub parent: Option<Reign>,
    /// Whose reign it is.
    pub device: Option<Who>,
    /// What it took over of its parent.
    pub fork: Log,
    /// The server before stood down for it.
    pub handed_over: bool,
    /// Reigns beside its own history that an operator ended by it.
    pub ends: Reigns,
    /// Edits decided there. The judge's.
    pub had: Edits,
    /// It cannot be taken back any more. The judge's.
    pub stands: bool,
    /// It is part of a master database, so that others can be shown it. The judge's.
    pub begun: bool,
    /// Its server has opened its port. The judge's.
    pub opened: bool,
    /// Made on a machine whose disk was put back. The judge's.
    pub put_back: bool,
    /// The replica of this reign. The judge's.
    pub replica: Option<Who>,
    /// An operator named another one in its place. The judge's.
    pub replaced: bool,
    /// Those that claimed the group beside it when an operator chose it. The judge's.
    pub over: Reigns,
}

/// What is under way on the way to a reign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takeover {
    None,
    /// The operator decided at the replica; `planned`: the server stood down for it.
    Begun {
        planned: bool,
    },
    /// The record stands in the control file.
    Decided(Reign),
    /// The copy's file has become the master database.
    Placed(Reign),
}

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    None,
    Server,
    Replica,
}

/// What survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disk {
    pub role: Role,
    /// The highest reign seen.
    pub seen: Reign,
    pub takeover: Takeover,
    pub master: Option<Db>,
    pub copy: Option<Db>,
}

impl Disk {
    pub const BLANK: Self =
        Self { role: Role::None, seen: 0, takeover: Takeover::None, master: None, copy: None };
}

/// A machine that may come to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Base {
    pub disk: Disk,
    /// It is gone for good.
    pub lost: bool,
    /// The port is open.
    pub serving: bool,
    /// Another device reigns: the part is ending.
    pub sealed: bool,
    pub standing_down: bool,
    /// It has said to a successor that this has everything. The judge's.
    pub drained: bool,
    /// The server has said once more that it stands down, and where.
    pub asked: bool,
    /// A device has shown that this reign was longer than it is here.
    pub told: bool,
    /// Reigns that claim the group beside its own, as somebody has shown it.
    pub rivals: Reigns,
    /// Up to where the replica has said to have everything.
    pub durable: u8,
    /// Where its copy is connected.
    pub stream: Option<Who>,
    /// The highest reign it knew then: only where that is not read each time.
    pub floor: Reign,
    /// It has answered that another device reigns. The judge's.
    pub answered: bool,
}

impl Base {
    pub const fn new(disk: Disk) -> Self {
        Self {
            disk,
            lost: false,
            serving: false,
            sealed: false,
            standing_down: false,
            drained: false,
            asked: false,
            told: false,
            rivals: Reigns::NONE,
            durable: 0,
            stream: None,
            floor: 0,
            answered: false,
        }
    }

    /// The process ends.
    pub fn end(&mut self) {
        *self = Self { lost: self.lost, answered: self.answered, ..Self::new(self.disk) };
    }
}

/// One operation of a client on its way to a server, or the answer on its way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    Sent,
    /// Found acceptable, and queued for the writer: only where that is two steps.
    Admitted,
    /// Written at the server, and not acknowledged yet.
    Written {
        sequence: u8,
    },
    /// Acknowledged; `safe` is what the server said then.
    Answered {
        sequence: u8,
        safe: u8,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Push {
    pub to: Who,
    pub reign: Reign,
    pub op: Op,
    pub step: Step,
    /// The connection is gone.
    pub stale: bool,
}

/// A device that only follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub lost: bool,
    /// The reign met last.
    pub followed: Reign,
    /// The highest reign heard of.
    pub highest: Reign,
    /// Its cursor's reign, and everything up to the cursor.
    pub at: Reign,
    pub mirror: Log,
    /// Edits that wait, and edits that wait to be offered from the mirror.
    pub own: Edits,
    pub offers: Edits,
    /// The base of those offers: the number of a reign and a sequence.
    pub fork: (u8, u8),
    /// Sequences of accepted operations kept until they are safe; zero for none.
    pub retained: [u8; EDITS],
    pub retained_offers: [u8; EDITS],
    pub link: Option<Who>,
    pub push: Option<Push>,
    /// A new reign was met and nothing offered to it: only where that is two steps.
    pub owes: Option<u8>,
    /// What its user was told is done, or has seen, and nothing newer instead. The judge's.
    pub holds: Edits,
}

/// An edit somebody made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Made {
    pub by: u8,
    /// The number of the reign and the sequence up to which its author had everything.
    pub base: (u8, u8),
    /// What its author had seen. The judge's.
    pub seen: Edits,
    /// The reign that first acknowledged or showed it. The judge's.
    pub confirmed: Option<Reign>,
}

/// What must never have happened. The judge's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Breach {
    /// A server took something after it had answered that another one reigns.
    TookAfterItsEnd,
    /// The replica took something of a reign that it knew to have ended.
    TookOfAnEndedReign,
    /// A sequence was given by a server that had been shown that it may have given it before.
    ReusedKnowingly,
    /// A server took something although it had been shown another reign of its number.
    TookWhileContested,
    /// A device took another history of one reign over the one it had.
    WentBack,
    /// Changes that a copy alone may have had were replaced.
    Discarded,
    /// A server stood down, and its successor lacked something it had acknowledged.
    PlannedLoss,
    /// A record does not say what its server took over.
    FalseRecord,
    /// An older edit took the place of one whose author had seen it.
    PutBack,
    /// An edit took the place of another one as if its author had seen that.
    OverUnseen,
}

/// A set of breaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Breaches(u16);

impl Breaches {
    pub fn has(self, breach: Breach) -> bool {
        self.0 & (1 << breach as u16) != 0
    }

    pub fn note_if(&mut self, happened: bool, breach: Breach) {
        self.0 |= u16::from(happened) << breach as u16;
    }
}

/// An image of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Image {
    None,
    Taken(Who, Disk),
    /// It was put back.
    Used,
}

/// The whole group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// All records ever signed.
    pub reigns: [Record; REIGNS],
    pub begun: u8,
    pub bases: [Base; 3],
    pub clients: [Client; 2],
    pub image: Image,
    pub edits: [Made; EDITS],
    pub made: u8,
    /// Machines and clients lost.
    pub losses: u8,
    pub breaches: Breaches,
}

impl State {
    /// One server, its replica which has everything, and two clients that have nothing yet.
    pub fn new() -> Self {
        let db = Db { replica: Some(Who::Replica), ..Db::default() };
        let server = Disk { role: Role::Server, master: Some(db), ..Disk::BLANK };
        let replica = Disk { role: Role::Replica, copy: Some(db), ..Disk::BLANK };
        let client = Client {
            lost: false,
            followed: 0,
            highest: 0,
            at: 0,
            mirror: Log::default(),
            own: Edits::default(),
            offers: Edits::default(),
            fork: (0, 0),
            retained: [0; EDITS],
            retained_offers: [0; EDITS],
            link: None,
            push: None,
            owes: None,
            holds: Edits::default(),
        };
        let mut reigns = [Record::default(); REIGNS];
        let device = Some(Who::Server);
        reigns[0] =
            Record { number: 1, begun: true, opened: true, device, replica: db.replica, ..Record::default() };
        Self {
            reigns,
            begun: 1,
            bases: [Base::new(server), Base::new(replica), Base::new(Disk::BLANK)],
            clients: [client; 2],
            image: Image::None,
            edits: [Made::default(); EDITS],
            made: 0,
            losses: 0,
            breaches: Breaches::default(),
        }
    }

    pub fn base(&self, who: Who) -> &Base {
        &self.bases[who as usize]
    }

    pub fn base_mut(&mut self, who: Who) -> &mut Base {
        &mut self.bases[who as usize]
    }

    pub fn client(&self, client: u8) -> &Client {
        &self.clients[usize::from(client)]
    }

    pub fn client_mut(&mut self, client: u8) -> &mut Client {
        &mut self.clients[usize::from(client)]
    }

    pub fn record(&self, reign: Reign) -> &Record {
        &self.reigns[usize::from(reign)]
    }

    pub fn number(&self, reign: Reign) -> u8 {
        self.record(reign).number
    }

    /// The master database of a machine whose port is open.
    pub fn served_by(&self, who: Who) -> Option<&Db> {
        let base = self.base(who);
        if base.serving { base.disk.master.as_ref() } else { None }
    }

    /// A reign and those it follows, the latest first.
    pub fn line(&self, reign: Reign) -> impl Iterator<Item = Reign> {
        std::iter::successors(Some(reign), |reign| self.record(*reign).parent)
    }

    /// Whether a reign follows another one, at some remove.
    pub fn follows(&self, reign: Reign, earlier: Reign) -> bool {
        reign != earlier && self.line(reign).any(|before| before == earlier)
    }

    /// Another spare machine is in the place of the one that is lost.
    pub fn forget_spare(&mut self) {
        let gone = |named: &mut Option<Who>| {
            if *named == Some(Who::Spare) {
                *named = Some(Who::Gone);
            }
        };
        let databases = self.bases.iter_mut().flat_map(|base| [&mut base.disk.master, &mut base.disk.copy]);
        databases.flatten().for_each(|db| gone(&mut db.replica));
        for record in &mut self.reigns {
            gone(&mut record.device);
            gone(&mut record.replica);
        }
    }

    /// No copy is connected to this server any more.
    pub fn leave_streams(&mut self, server: Who) {
        for base in &mut self.bases {
            base.stream.take_if(|to| *to == server);
        }
    }

    pub fn begin(&mut self, record: Record) -> Reign {
        let reign = self.begun;
        self.reigns[usize::from(reign)] = record;
        self.begun += 1;
        reign
    }
}

impl Model {
    /// The group at the beginning of a run.
    pub fn begins(&self) -> State {
        let mut state = State::new();
        if self.scope.begins != Begins::Whole {
            *state.base_mut(Who::Server) = Base { lost: true, ..Base::new(Disk::BLANK) };
        }
        if self.scope.begins == Begins::WithTwoReplicas {
            let replica = Some(Who::Spare);
            let db = Db { replica, ..Db::default() };
            state.base_mut(Who::Spare).disk = Disk { role: Role::Replica, copy: Some(db), ..Disk::BLANK };
            state.reigns[0] = Record { replica, replaced: true, ..state.reigns[0] };
        }
        state
    }
}

/// What the product's own code is given to decide on.
impl Model {
    pub fn epoch(&self, state: &State, reign: Reign) -> Epoch {
        let nonce = if self.keeps(Guard::NonceTellsReignsApart) { reign } else { 0 };
        Epoch { number: u64::from(state.number(reign)), nonce: [nonce; 16] }
    }

    pub fn lineage(&self, state: &State, reign: Reign) -> Lineage {
        let mut line: Vec<Promotion> = state.line(reign).map(|reign| self.promotion(state, reign)).collect();
        line.reverse();
        Lineage::new(GROUP, line).expect("records are made as a chain")
    }

    fn promotion(&self, state: &State, reign: Reign) -> Promotion {
        let record = state.record(reign);
        Promotion {
            group: GROUP,
            epoch: self.epoch(state, reign),
            parent: record.parent.map(|parent| Parent {
                epoch: self.epoch(state, parent),
                sequence: Sequence(record.fork.len().into()),
                chain: record.fork.chain(),
                transaction: 0,
                page_digest: [0; 16],
            }),
            ends: record.ends.all().map(|ended| self.epoch(state, ended)).collect(),
            device: DeviceId([1; 16]),
            operator: String::new(),
            reason: PromotionReason::Promoted,
            made_at: 0,
        }
    }

    pub fn cursor(&self, state: &State, reign: Reign, log: Log) -> Cursor {
        Cursor {
            group: GROUP,
            epoch: self.epoch(state, reign),
            sequence: Sequence(log.len().into()),
            chain: log.chain(),
        }
    }
}
