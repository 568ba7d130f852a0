//! The replica: following a server, being made the replica or not, beginning with the database of before. After
//! `replication::apply`, `replication::ship`, `daemon::replica`, `daemon::server::replicating` and
//! `daemon::reign`.

use mfpsync_replication::lineage::{Relation, Standpoint};

use super::guard::Guard;
use super::scope::{Appoints, Model};
use super::server::Claimed;
use super::state::{Breach, Db, Record, Reign, Role, State, Takeover, Who};

impl Model {
    /// An operator makes a machine the replica, at the server or by the recovery kit.
    pub(super) fn appoint(&self, state: &mut State, who: Who, at: Who) -> bool {
        let Some(mut db) = state.served_by(at).copied() else { return false };
        let base = state.base(who);
        let follows = base.disk.role == Role::None && !base.serving && !base.lost;
        if who == at || !follows || db.replica == Some(who) || !self.takes_changes(state, at) {
            return false;
        }
        // Where one is set, replication is stopped first: if that is lost, or once in a run.
        let anew = matches!(self.scope.appoints, Appoints::Anew | Appoints::Any);
        let anew = anew && !state.reigns.iter().any(|record| record.replaced);
        let (replaced, gone) = (db.replica.is_some(), db.replica == Some(Who::Gone));
        if replaced && !anew && !gone && self.keeps(Guard::OneReplica) {
            return false;
        }
        db.replica = Some(who);
        let record = &mut state.reigns[usize::from(db.reign)];
        (record.replica, record.replaced) = (db.replica, record.replaced || (replaced && (anew || gone)));
        let base = state.base_mut(at);
        (base.disk.master, base.durable) = (Some(db), 0);
        state.leave_streams(at);
        true
    }

    /// A machine that does not serve says hello to a server as a client: that hears of a higher reign, or the
    /// machine follows, first in what it has seen and then in its role.
    pub(super) fn meet(&self, state: &mut State, who: Who, at: Who) -> bool {
        let base = *state.base(who);
        let Some(db) = state.served_by(at).copied() else { return false };
        let serves = base.serving || base.disk.role == Role::Server;
        if base.lost || serves || base.disk.takeover != Takeover::None {
            return false;
        }
        let seen = base.disk.seen;
        // What nobody has shown it, it cannot show.
        if state.record(seen).begun && self.claims(state, at, seen) != Claimed::Nothing {
            return true;
        }
        if !self.continues(state, seen, db.reign) {
            return false;
        }
        let disk = &mut state.base_mut(who).disk;
        let called = db.replica == Some(who);
        match disk.role {
            _ if seen != db.reign => disk.seen = db.reign,
            Role::None if called => disk.role = Role::Replica,
            Role::Replica if !called => {
                disk.role = Role::None;
                state.base_mut(who).stream = None;
            }
            Role::None | Role::Replica | Role::Server => return false,
        }
        true
    }

    /// Whether a device that has seen a reign goes on with another one.
    pub(super) fn continues(&self, state: &State, seen: Reign, with: Reign) -> bool {
        if state.number(seen) > state.number(with) {
            return false;
        }
        match self.lineage(state, seen).relation(&self.lineage(state, with)) {
            Relation::Same | Relation::Extended { .. } | Relation::Replaced { .. } => true,
            Relation::Forked { .. } => !self.keeps(Guard::ForksAreRefused),
            Relation::Behind | Relation::Unrelated => false,
        }
    }

    /// The master database of a reign that was handed over becomes the copy.
    pub(super) fn seed(&self, state: &mut State, who: Who) -> bool {
        if !self.may_seed(state, who) {
            return false;
        }
        let disk = &mut state.base_mut(who).disk;
        let (left, seen) = (disk.master.take(), disk.seen);
        disk.copy = left;
        // Whatever a copy has otherwise than its server is overwritten.
        let next = left.and_then(|left| successor(state, seen, left.reign));
        let lacks = left.is_some_and(|left| next.is_none_or(|next| !next.fork.starts_with(left.log)));
        state.breaches.note_if(lacks, Breach::Discarded);
        true
    }

    fn may_seed(&self, state: &State, who: Who) -> bool {
        let base = state.base(who);
        let (Some(_), Some(left)) = (follows(state, who), base.disk.master) else { return false };
        if base.disk.copy.is_some() || state.number(base.disk.seen) <= state.number(left.reign) {
            return false;
        }
        if !self.keeps(Guard::ReusedWhereNothingIsLeft) {
            return true;
        }
        let handed_over = successor(state, base.disk.seen, left.reign).filter(|next| next.handed_over);
        handed_over.is_some_and(|next| {
            if self.keeps(Guard::ReusedOfTheSameHistory) {
                next.fork == left.log
            } else {
                next.fork.len() >= left.log.len()
            }
        })
    }

    pub(super) fn connect(&self, state: &mut State, who: Who, to: Who) -> bool {
        let Some(copy) = follows(state, who) else { return false };
        let Some(db) = state.served_by(to).copied().filter(|_| who != to) else { return false };
        if state.base(who).stream == Some(to) || self.may_seed(state, who) {
            return false;
        }
        if db.replica != Some(who) && self.keeps(Guard::ShipsToItsReplica) {
            return false;
        }
        let part = if let Some(copy) = copy {
            let ahead = (state.number(copy.reign), copy.log.len()) > (state.number(db.reign), db.log.len());
            if ahead && self.keeps(Guard::CopyAheadIsKept) {
                return self.is_told(state, to);
            }
            let part = self.is_part(state, &copy, &db);
            if !ahead && !part && self.keeps(Guard::CopyOfAnotherHistoryIsKept) {
                return copy.reign == db.reign && self.is_told(state, to);
            }
            part
        } else {
            false
        };
        let floor = if self.keeps(Guard::FloorIsReadEachTime) { 0 } else { state.base(who).disk.seen };
        state.leave_streams(to);
        let base = state.base_mut(who);
        (base.stream, base.floor) = (Some(to), floor);
        let base = state.base_mut(to);
        (base.standing_down, base.drained) = (false, false);
        base.durable = copy.filter(|_| part).map_or(0, |copy| copy.log.len());
        true
    }

    /// Whether a copy is an earlier moment of a database.
    pub fn is_part(&self, state: &State, copy: &Db, db: &Db) -> bool {
        let stands = self.lineage(state, db.reign).standpoint(&self.cursor(state, copy.reign, copy.log));
        stands == Standpoint::Continue && db.log.starts_with(copy.log)
    }

    pub(super) fn ship(&self, state: &mut State, who: Who, heard: bool) -> bool {
        let base = *state.base(who);
        let (Some(copy), Some(from)) = (follows(state, who), base.stream) else { return false };
        let Some(db) = state.served_by(from).copied() else { return false };
        let each_time = self.keeps(Guard::FloorIsReadEachTime);
        let floor = state.number(if each_time { base.disk.seen } else { base.floor });
        if state.number(db.reign) < floor && self.keeps(Guard::NothingOfAnEndedReign) {
            return false;
        }
        let ended = state.number(db.reign) < state.number(base.disk.seen);
        state.breaches.note_if(ended && copy != Some(db), Breach::TookOfAnEndedReign);
        let discarded = copy.is_some_and(|copy| !db.log.starts_with(copy.log));
        state.breaches.note_if(discarded, Breach::Discarded);
        state.base_mut(who).disk.copy = Some(db);
        if heard {
            state.base_mut(from).durable = db.log.len();
        } else {
            state.base_mut(who).stream = None;
        }
        true
    }
}

/// The record in the history up to `seen` of the reign that follows another one.
fn successor(state: &State, seen: Reign, of: Reign) -> Option<&Record> {
    let mut line = state.line(seen).map(|reign| state.record(reign));
    line.find(|record| record.parent == Some(of))
}

/// A device that is the replica and goes on being it: its copy, if it has one.
pub fn follows(state: &State, who: Who) -> Option<Option<Db>> {
    let Role::Replica = state.base(who).disk.role else { return None };
    Some(state.base(who).disk.copy).filter(|_| state.base(who).disk.takeover == Takeover::None)
}
