//! Two reigns of one number: they are shown to each other, and an operator chooses one. After
//! `daemon::server::serving`, `daemon::server::gate` and `daemon::panel::reign`.

use super::guard::Guard;
use super::scope::Model;
use super::server::Claimed;
use super::state::{Breach, Db, Record, Reign, Reigns, State, Who};

impl Model {
    /// What a verified claim of a reign, shown to a server in a hello, makes it do.
    pub(super) fn claims(&self, state: &mut State, at: Who, claim: Reign) -> Claimed {
        let Some(db) = state.served_by(at).copied().filter(|db| db.reign != claim) else {
            return Claimed::Nothing;
        };
        if state.number(claim) > state.number(db.reign) {
            self.show(state, at, claim);
            return Claimed::Superseded;
        }
        if !self.is_contested(state, db.reign, claim) {
            return Claimed::Nothing;
        }
        let base = state.base_mut(at);
        base.rivals = base.rivals.with(claim);
        Claimed::Contested
    }

    pub(super) fn is_contested(&self, state: &State, reign: Reign, by: Reign) -> bool {
        self.keeps(Guard::ForksAreRefused)
            && reign != by
            && self.lineage(state, reign).is_contested_by(&self.epoch(state, by))
    }

    /// An operator chooses this server where others claim the group: by a record above all, which ends those by
    /// name.
    pub(super) fn stay(&self, state: &mut State, who: Who) -> bool {
        let base = *state.base(who);
        let Some(db) = state.served_by(who).copied() else { return false };
        let stops = base.sealed || base.standing_down;
        if state.begun == self.scope.reigns
            || base.rivals.is_empty()
            || (stops && self.keeps(Guard::StaysWhileItReigns))
        {
            return false;
        }
        state.breaches.note_if(base.answered, Breach::TookAfterItsEnd);
        state.breaches.note_if(base.standing_down && base.drained, Breach::PlannedLoss);
        // Also what those follow and this one does not.
        let theirs = base.rivals.all().flat_map(|rival| state.line(rival));
        let beside = theirs.filter(|of| *of != db.reign && !state.follows(db.reign, *of));
        let over = beside.fold(Reigns::default(), Reigns::with);
        let highest = base.rivals.all().map(|rival| state.number(rival)).max().unwrap_or_default();
        let reign = state.begin(Record {
            number: state.number(db.reign).max(highest) + 1,
            parent: Some(db.reign),
            device: Some(who),
            fork: db.log,
            ends: self.ended(state, db.reign, base.rivals),
            had: if self.scope.sync { db.ledger.edits() } else { Default::default() },
            stands: true,
            begun: true,
            opened: true,
            replica: db.replica,
            over,
            ..Record::default()
        });
        let base = state.base_mut(who);
        (base.disk.master, base.rivals) = (Some(Db { reign, ..db }), Reigns::default());
        // Whoever follows says hello anew.
        for client in 0..2 {
            if state.client(client).link == Some(who) {
                self.unlink(state, client);
            }
        }
        true
    }

    /// The rivals, and those before them that are not of this history either: a device may have slept since.
    fn ended(&self, state: &State, own: Reign, rivals: Reigns) -> Reigns {
        let mut ends = Reigns::default();
        if self.keeps(Guard::ChosenEndsTheOthers) {
            ends = rivals;
        }
        if self.keeps(Guard::ChosenEndsThoseBefore) {
            let before = rivals.all().filter_map(|rival| state.record(rival).parent);
            ends = before.filter(|before| self.is_contested(state, own, *before)).fold(ends, Reigns::with);
        }
        ends
    }

    /// The control file gets to know of the reign that was chosen.
    pub(super) fn note(&self, state: &mut State, who: Who) -> bool {
        let Some(reign) = state.served_by(who).map(|db| db.reign) else { return false };
        if state.number(state.base(who).disk.seen) >= state.number(reign) {
            return false;
        }
        state.base_mut(who).disk.seen = reign;
        true
    }
}
