//! The replica: following, taking over, and letting a spare machine recover the server from its copy. After
//! `replication::apply`, `replication::ship`, `daemon::replica`, `daemon::panel::reign` and
//! `daemon::reign::takeover`.

use mfpsync_replication::lineage::Standpoint;

use super::guard::Guard;
use super::scope::Model;
use super::state::{Breach, Db, Disk, Edits, Image, Record, Reign, Role, State, Takeover, Who};

impl Model {
    pub(super) fn connect(&self, state: &mut State, who: Who) -> bool {
        let Some(copy) = follows(state).filter(|_| state.stream != Some(who) && who != Who::Replica) else {
            return false;
        };
        let Some(db) = state.served_by(who).copied() else { return false };
        let ahead = (state.number(copy.reign), copy.log.len()) > (state.number(db.reign), db.log.len());
        if ahead && self.keeps(Guard::CopyAheadIsKept) {
            return self.is_told(state, who);
        }
        let part = self.is_part(state, &copy, &db);
        if !ahead && !part && self.keeps(Guard::CopyOfAnotherHistoryIsKept) {
            return copy.reign == db.reign && self.is_told(state, who);
        }
        (state.stream, state.floor) = (Some(who), self.floor(state));
        let base = state.base_mut(who);
        base.standing_down = false;
        base.durable = if part { copy.log.len() } else { 0 };
        true
    }

    /// Whether a copy is an earlier moment of a database.
    fn is_part(&self, state: &State, copy: &Db, db: &Db) -> bool {
        let stands = self.lineage(state, db.reign).standpoint(&self.cursor(state, copy.reign, copy.log));
        stands == Standpoint::Continue && db.log.starts_with(copy.log)
    }

    /// What the replica notes of its connection.
    fn floor(&self, state: &State) -> Reign {
        if self.keeps(Guard::FloorIsReadEachTime) { 0 } else { state.base(Who::Replica).disk.seen }
    }

    pub(super) fn ship(&self, state: &mut State, heard: bool) -> bool {
        let disk = state.base(Who::Replica).disk;
        let (Some(who), Some(copy)) = (state.stream, disk.copy) else { return false };
        let Some(db) = state.served_by(who).copied() else { return false };
        let each_time = self.keeps(Guard::FloorIsReadEachTime);
        let floor = state.number(if each_time { disk.seen } else { state.floor });
        if state.number(db.reign) < floor && self.keeps(Guard::NothingOfAnEndedReign) {
            return false;
        }
        let ended = state.number(db.reign) < state.number(disk.seen);
        state.breaches.note_if(ended && db != copy, Breach::TookOfAnEndedReign);
        state.breaches.note_if(!db.log.starts_with(copy.log), Breach::Discarded);
        state.base_mut(Who::Replica).disk.copy = Some(db);
        if heard {
            state.base_mut(who).durable = db.log.len();
        } else {
            state.stream = None;
        }
        true
    }

    pub(super) fn stand_down(&self, state: &mut State, who: Who) -> bool {
        if !self.scope.planned || state.stream != Some(who) {
            return false;
        }
        state.base_mut(who).standing_down = true;
        true
    }

    pub(super) fn go_on(&self, state: &mut State, who: Who) -> bool {
        if !state.base(who).standing_down {
            return false;
        }
        state.base_mut(who).standing_down = false;
        if let Takeover::Begun { planned } = &mut state.base_mut(Who::Replica).disk.takeover {
            *planned = false;
        }
        true
    }

    pub(super) fn promote(&self, state: &mut State, planned: bool) -> bool {
        let Some(copy) = follows(state).filter(|_| state.begun < self.scope.reigns) else { return false };
        let drained = |who| {
            let base = state.base(who);
            base.standing_down && base.disk.master.is_some_and(|db| db.log.len() == base.durable)
        };
        if !self.may_reign(state, &copy) || (planned && !state.stream.is_some_and(drained)) {
            return false;
        }
        let disk = &mut state.base_mut(Who::Replica).disk;
        (disk.role, disk.takeover) = (Role::Server, Takeover::Begun { planned });
        // The replica part ends.
        state.stream = None;
        true
    }

    fn may_reign(&self, state: &State, copy: &Db) -> bool {
        let seen = state.base(Who::Replica).disk.seen;
        state.number(seen) <= state.number(copy.reign) || !self.keeps(Guard::DecidesByWhatWasSeen)
    }

    pub(super) fn decide(&self, state: &mut State) -> bool {
        let disk = state.base(Who::Replica).disk;
        let (Takeover::Begun { planned }, Some(copy)) = (disk.takeover, disk.copy) else { return false };
        if !self.may_reign(state, &copy) || state.begun == self.scope.reigns {
            return false;
        }
        let number = state.number(copy.reign) + 1;
        let reign = state.begin(Record { stands: true, ..self.record(state, number, &copy, planned) });
        let disk = &mut state.base_mut(Who::Replica).disk;
        (disk.seen, disk.takeover) = (reign, Takeover::Decided(reign));
        true
    }

    fn record(&self, state: &State, number: u8, copy: &Db, planned: bool) -> Record {
        let put_back = self.scope.put_back == Some(Who::Replica) && state.image == Image::Used;
        let (parent, had) =
            (Some(copy.reign), if self.scope.sync { copy.ledger.edits() } else { Edits::default() });
        Record { number, parent, fork: copy.log, had, stands: false, opened: false, planned, put_back }
    }

    pub(super) fn place(&self, state: &mut State) -> bool {
        let disk = &mut state.base_mut(Who::Replica).disk;
        let Takeover::Decided(reign) = disk.takeover else { return false };
        (disk.master, disk.takeover) = (disk.copy.take(), Takeover::Placed(reign));
        true
    }

    pub(super) fn reign(&self, state: &mut State, who: Who) -> bool {
        let disk = state.base(who).disk;
        let (Takeover::Placed(reign), Some(db)) = (disk.takeover, disk.master) else { return false };
        state.breaches.note_if(db.log != state.record(reign).fork, Breach::FalseRecord);
        let base = state.base_mut(who);
        (base.disk.role, base.disk.takeover) = (Role::Server, Takeover::None);
        (base.disk.master, base.answered) = (Some(Db { reign, ..db }), false);
        true
    }

    pub(super) fn propose(&self, state: &mut State) -> bool {
        let Some(copy) = follows(state).filter(|_| state.begun < self.scope.reigns) else { return false };
        if state.base(Who::Spare).disk != Disk::BLANK {
            return false;
        }
        let seen = state.base(Who::Replica).disk.seen;
        let number = state.number(seen).max(state.number(copy.reign)) + 1;
        let reign = state.begin(self.record(state, number, &copy, false));
        let disk = &mut state.base_mut(Who::Spare).disk;
        (disk.master, disk.takeover) = (Some(copy), Takeover::Proposed(reign));
        true
    }

    pub(super) fn activate(&self, state: &mut State) -> bool {
        let Takeover::Proposed(reign) = state.base(Who::Spare).disk.takeover else { return false };
        let Some(copy) = follows(state) else { return false };
        let record = *state.record(reign);
        let stands = record.parent == Some(copy.reign) && record.fork == copy.log;
        let seen = state.base(Who::Replica).disk.seen;
        if state.number(seen) >= record.number || (!stands && self.keeps(Guard::ActivatedWhereItStands)) {
            return false;
        }
        state.reigns[usize::from(reign)].stands = true;
        state.base_mut(Who::Replica).disk.seen = reign;
        true
    }

    pub(super) fn learn(&self, state: &mut State) -> bool {
        let Takeover::Proposed(reign) = state.base(Who::Spare).disk.takeover else { return false };
        let active = state.base(Who::Replica).disk.seen == reign;
        if !active && self.keeps(Guard::ServesOnceActivated) {
            return false;
        }
        let disk = &mut state.base_mut(Who::Spare).disk;
        (disk.seen, disk.takeover) = (reign, Takeover::Placed(reign));
        true
    }

    pub(super) fn abandon(&self, state: &mut State) -> bool {
        let Takeover::Proposed(reign) = state.base(Who::Spare).disk.takeover else { return false };
        if state.base(Who::Replica).disk.seen == reign {
            return false;
        }
        state.base_mut(Who::Spare).disk = Disk::BLANK;
        true
    }
}

/// The copy of a device that is the replica and goes on being it.
fn follows(state: &State) -> Option<Db> {
    let disk = state.base(Who::Replica).disk;
    if disk.role == Role::Replica && disk.takeover == Takeover::None { disk.copy } else { None }
}
