//! From replica to server: because the server is lost, or because it hands over. After `daemon::reign::promotion`,
//! `daemon::reign::takeover` and `daemon::control_file`.

use super::guard::Guard;
use super::replica::follows;
use super::scope::{Appoints, Model};
use super::state::{Breach, Db, Edits, Image, Record, Reign, Role, State, Takeover, Who};

impl Model {
    /// The replica has its server stand down.
    pub(super) fn stand_down(&self, state: &mut State, who: Who) -> bool {
        // Where the spare machine is to come in, the first takeover is that from a server that is lost.
        let first = state.begun == 1 && self.scope.appoints == Appoints::TheSpare;
        let asks = self.scope.planned && !first && state.begun < self.scope.reigns;
        let Some(server) = state.base(who).stream.filter(|_| asks) else { return false };
        state.base_mut(server).standing_down = true;
        true
    }

    pub(super) fn go_on(&self, state: &mut State, server: Who) -> bool {
        // The record follows the last word within a moment, and this takes half a minute.
        let waited_for = state.bases.iter().any(|base| base.asked);
        if !state.base(server).standing_down || waited_for {
            return false;
        }
        state.base_mut(server).standing_down = false;
        true
    }

    /// The operator decides at the replica, or at a server that hands over.
    pub(super) fn promote(&self, state: &mut State, who: Who, planned: bool) -> bool {
        let Some(Some(copy)) = follows(state, who) else { return false };
        if state.begun == self.scope.reigns || !self.may_reign(state, who, &copy) {
            return false;
        }
        if planned {
            let Some(server) = state.base(who).stream else { return false };
            let base = state.base_mut(server);
            let has_all = base.disk.master == Some(copy) && base.durable == copy.log.len();
            if !base.standing_down || (!has_all && self.keeps(Guard::WaitsForTheCopy)) {
                return false;
            }
            base.drained = true;
        }
        let base = state.base_mut(who);
        (base.disk.role, base.disk.takeover) = (Role::Server, Takeover::Begun { planned });
        // The replica part ends.
        base.stream = None;
        true
    }

    fn may_reign(&self, state: &State, who: Who, copy: &Db) -> bool {
        let seen = state.base(who).disk.seen;
        state.number(seen) <= state.number(copy.reign) || !self.keeps(Guard::DecidesByWhatWasSeen)
    }

    /// Right before the record the server says once more that it stands down, and where.
    pub(super) fn ask_again(&self, state: &mut State, who: Who) -> bool {
        let base = state.base(who);
        let (Takeover::Begun { planned: true }, Some(copy)) = (base.disk.takeover, base.disk.copy) else {
            return false;
        };
        let waits = self.keeps(Guard::WaitsForTheCopy);
        let stands_there = |server: &Who| {
            let db = state.served_by(*server);
            db.is_some_and(|db| db.replica == Some(who) && (*db == copy || !waits))
        };
        let Some(server) = Who::ALL.into_iter().find(stands_there) else { return false };
        let base = state.base_mut(server);
        (base.standing_down, base.drained) = (true, true);
        state.base_mut(who).asked = true;
        true
    }

    /// The server does not stand down any more or does not answer, or the operator thinks better of it: this is
    /// the replica again.
    pub(super) fn take_back(&self, state: &mut State, who: Who) -> bool {
        let base = state.base_mut(who);
        let Takeover::Begun { .. } = base.disk.takeover else { return false };
        (base.disk.role, base.disk.takeover) = (Role::Replica, Takeover::None);
        base.asked = base.asked && !self.keeps(Guard::DecidesWhatIsUnderWay);
        true
    }

    /// The record is signed and written to the control file.
    pub(super) fn decide(&self, state: &mut State, who: Who) -> bool {
        let base = *state.base(who);
        let Some(copy) = base.disk.copy else { return false };
        let planned = match base.disk.takeover {
            Takeover::Begun { planned } => planned,
            // It was taken back since the server was asked.
            Takeover::None if base.asked => true,
            Takeover::None | Takeover::Decided(_) | Takeover::Placed(_) => return false,
        };
        let unasked = planned && !base.asked && self.keeps(Guard::AsksOnceMore);
        if unasked || !self.may_reign(state, who, &copy) || state.begun == self.scope.reigns {
            return false;
        }
        let stood_down = state.bases.iter().filter(|base| base.drained).filter_map(|base| base.disk.master);
        let lacks = stood_down.into_iter().any(|db| db.reign == copy.reign && db.log != copy.log);
        state.breaches.note_if(planned && lacks, Breach::PlannedLoss);
        let reign = state.begin(self.record(state, who, &copy, planned));
        let base = state.base_mut(who);
        (base.asked, base.disk.seen) = (false, reign);
        if base.disk.takeover != Takeover::None {
            base.disk.takeover = Takeover::Decided(reign);
        }
        true
    }

    fn record(&self, state: &State, who: Who, copy: &Db, handed_over: bool) -> Record {
        let parent = state.record(copy.reign);
        Record {
            number: parent.number + 1,
            parent: Some(copy.reign),
            device: Some(who),
            fork: copy.log,
            handed_over,
            had: if self.scope.sync { copy.ledger.edits() } else { Edits::default() },
            stands: true,
            put_back: self.scope.put_back == Some(who) && state.image == Image::Used,
            ..Record::default()
        }
    }

    /// The copy's file becomes the master database. One that is there is moved aside.
    pub(super) fn place(&self, state: &mut State, who: Who) -> bool {
        let disk = &mut state.base_mut(who).disk;
        let Takeover::Decided(reign) = disk.takeover else { return false };
        (disk.master, disk.takeover) = (disk.copy.take(), Takeover::Placed(reign));
        true
    }

    /// The record becomes part of the master database. In the same transaction the device that handed over becomes
    /// the replica, if it goes on as a client.
    pub(super) fn reign(&self, state: &mut State, who: Who) -> bool {
        let Some((reign, db)) = placed(state, who).filter(|(reign, db)| db.reign != *reign) else {
            return false;
        };
        let record = *state.record(reign);
        state.breaches.note_if(db.log != record.fork, Breach::FalseRecord);
        let before = state.record(db.reign).device;
        let swaps = record.handed_over && self.scope.swaps && db.replica.is_some();
        let replica = before.filter(|_| swaps);
        state.reigns[usize::from(reign)] = Record { replica, begun: true, ..record };
        let base = state.base_mut(who);
        (base.disk.master, base.answered) = (Some(Db { reign, replica, ..db }), false);
        true
    }

    /// The control file forgets the takeover.
    pub(super) fn end_takeover(&self, state: &mut State, who: Who) -> bool {
        if placed(state, who).is_none_or(|(reign, db)| db.reign != reign) {
            return false;
        }
        state.base_mut(who).disk.takeover = Takeover::None;
        true
    }
}

fn placed(state: &State, who: Who) -> Option<(Reign, Db)> {
    let disk = state.base(who).disk;
    let Takeover::Placed(reign) = disk.takeover else { return None };
    Some((reign, disk.master?))
}
