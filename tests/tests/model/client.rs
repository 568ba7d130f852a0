//! A client: edits, meeting a reign, following it, offering again. After `replication::round`, its `greet`,
//! and `storage::local::reoffer`.

use mfpsync_replication::follow::{self, Start};
use mfpsync_replication::lineage::{Relation, Standpoint};
use mfpsync_replication::message::ResetReason;
use mfpsync_storage::master::Head;
use mfpsync_storage::model::{PublicKey, Sequence};

use super::guard::Guard;
use super::scope::Model;
use super::server::Claimed;
use super::state::{
    Breach, Client, Db, EDITS, Edit, Edits, GROUP, Ledger, Log, Made, Op, Push, Reign, State, Step, Who,
};

/// Why a device does not follow a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Superseded,
    Forked,
    Unrelated,
    RolledBack,
}

impl Model {
    pub(super) fn edit(&self, state: &mut State, client: u8) -> bool {
        // The two clients are alike, so the first edit is the first one's.
        let known = client < self.scope.clients;
        if state.made == self.scope.edits || !known || (state.made == 0 && client != 0) {
            return false;
        }
        let edit = state.made;
        let Client { at, mirror, .. } = *state.client(client);
        let seen = mirror.entries().fold(state.client(client).own, |seen, (_, op)| seen.with(op.edit));
        let base = (state.number(at), mirror.len());
        let seen = if self.scope.one_item { seen } else { Edits::default() };
        state.edits[usize::from(edit)] = Made { by: client, base, seen, confirmed: None };
        state.made += 1;
        let client = state.client_mut(client);
        client.own = client.own.with(edit);
        true
    }

    /// Somebody shows it the record of the highest reign that serves, or did.
    pub(super) fn hear(&self, state: &mut State, client: u8) -> bool {
        let open = (0..state.begun).filter(|reign| state.record(*reign).opened);
        let Some(highest) = open.max_by_key(|reign| state.number(*reign)) else { return false };
        if state.client(client).lost || state.number(highest) <= state.number(state.client(client).highest) {
            return false;
        }
        let client = state.client_mut(client);
        client.highest = highest;
        if !self.keeps(Guard::HeardIsNotMet) {
            client.followed = highest;
        }
        true
    }

    pub(super) fn greet(&self, state: &mut State, client: u8, who: Who) -> bool {
        let Client { lost, link, highest, .. } = *state.client(client);
        let Some(db) = state.served_by(who).copied() else { return false };
        if lost || link == Some(who) {
            return false;
        }
        // It leaves the server it had, if any.
        self.unlink(state, client);
        match self.claims(state, who, highest) {
            Claimed::Superseded => return true,
            Claimed::Contested => {
                // The server answers by its own claim.
                if state.number(db.reign) > state.number(highest) {
                    state.client_mut(client).highest = db.reign;
                }
                return true;
            }
            Claimed::Nothing => {}
        }
        let Ok(fork) = self.judge(state, client, &db) else { return false };
        let base = fork.map(|fork| {
            let epoch = self.lineage(state, db.reign).epoch_of(Sequence(fork.into()));
            (epoch as u8, fork)
        });
        let met = state.client_mut(client);
        (met.highest, met.followed, met.link) = (db.reign, db.reign, Some(who));
        if let Some(base) = base {
            self.limit_bases(state, client, base);
            if self.keeps(Guard::MetAndOfferedAtOnce) {
                self.offer_again(state, client, base, db.ledger);
            } else {
                state.client_mut(client).owes = Some(base.1);
            }
        }
        let safe = state.base(who).durable;
        release(state.client_mut(client), safe);
        true
    }

    /// Whether a client follows this server; if it is a new reign, up to where that has what the client's had.
    pub fn judge(&self, state: &State, number: u8, db: &Db) -> Result<Option<u8>, Refusal> {
        let client = state.client(number);
        let (theirs, highest) = (self.epoch(state, db.reign), self.epoch(state, client.highest));
        if theirs.number < highest.number {
            return Err(Refusal::Superseded);
        }
        if theirs.number == highest.number && theirs != highest && self.keeps(Guard::ForksAreRefused) {
            return Err(Refusal::Forked);
        }
        let lineage = self.lineage(state, db.reign);
        let fork = match self.lineage(state, client.followed).relation(&lineage) {
            Relation::Same => None,
            Relation::Extended { fork } | Relation::Replaced { fork } => Some(fork.0 as u8),
            Relation::Behind => return Err(Refusal::Superseded),
            Relation::Forked { .. } if self.keeps(Guard::ForksAreRefused) => return Err(Refusal::Forked),
            Relation::Forked { .. } => None,
            Relation::Unrelated => return Err(Refusal::Unrelated),
        };
        let floor = self.cursor(state, client.at, client.mirror);
        let has_less =
            lineage.standpoint(&floor) == Standpoint::Continue && db.log.len() < client.mirror.len();
        if has_less && self.keeps(Guard::LessThanBeforeIsRefused) {
            return Err(Refusal::RolledBack);
        }
        let mut answered = (0..state.made)
            .filter(|edit| state.edits[usize::from(*edit)].by == number && !client.own.has(*edit));
        let forgot = fork.is_none() && answered.any(|edit| !db.ledger.has(Op { edit, mirrored_by: None }));
        if forgot && self.keeps(Guard::ForgottenAnswersAreRefused) {
            return Err(Refusal::RolledBack);
        }
        Ok(fork)
    }

    pub(super) fn offer_late(&self, state: &mut State, client: u8) -> bool {
        let ledger = state.client(client).link.and_then(|who| state.served_by(who)).map(|db| db.ledger);
        let (Some(ledger), Some(fork)) = (ledger, state.client_mut(client).owes.take()) else { return false };
        let epoch = self.lineage(state, state.client(client).followed).epoch_of(Sequence(fork.into()));
        self.offer_again(state, client, (epoch as u8, fork), ledger);
        true
    }

    /// What waits, or is offered again, and was made to what came after the fork counts as made to what both have.
    fn limit_bases(&self, state: &mut State, client: u8, base: (u8, u8)) {
        let own = state.client(client).own;
        let kept = state.client(client).retained;
        for (made, edit) in state.edits.iter_mut().zip(0..) {
            let waits = made.by == client && (own.has(edit) || kept[usize::from(edit)] > 0);
            if waits && made.base.1 > base.1 && self.keeps(Guard::BasesAreLimited) {
                made.base = base;
            }
        }
    }

    fn offer_again(&self, state: &mut State, client: u8, base: (u8, u8), ledger: Ledger) {
        let one_item = self.scope.one_item;
        let client = state.client_mut(client);
        for edit in 0..EDITS as u8 {
            let (own, offer) = (retained(client, edit, false), retained(client, edit, true));
            let decided = ledger.has(Op { edit, mirrored_by: None });
            let undecided = own > 0 && !decided && self.keeps(Guard::UndecidedIsOffered);
            if own > base.1 || undecided {
                client.retained[usize::from(edit)] = 0;
                if self.keeps(Guard::RetainedIsOffered) {
                    client.own = client.own.with(edit);
                }
            }
            if offer > base.1 {
                client.retained_offers[usize::from(edit)] = 0;
                client.offers = client.offers.with(edit);
            }
        }
        if self.keeps(Guard::MirrorIsOffered) {
            // Items as they are now: of one item, the last change.
            let last = client.mirror.len().saturating_sub(1);
            let from = if one_item { base.1.max(last) } else { base.1 };
            let newest = client.mirror.entries().skip(from.into());
            client.offers = newest.fold(client.offers, |offers, (_, op)| offers.with(op.edit));
        }
        client.fork = if client.offers.is_empty() { (0, 0) } else { base };
    }

    pub(super) fn pull(&self, state: &mut State, client: u8) -> bool {
        let Client { link, at, mirror, .. } = *state.client(client);
        let Some(who) = link else { return false };
        let Some(db) = state.served_by(who).copied() else { return false };
        let shown = db.log.prefix(self.shown(state, who));
        let safe = state.base(who).durable;
        let same_reign = self.epoch(state, at) == self.epoch(state, db.reign);
        match self.where_to_start(state, at, mirror, &db) {
            Start::RolledBack => return self.is_told(state, who),
            // A reset ends no earlier than where the same reign had brought the mirror.
            Start::Reset(_) if same_reign && shown.len() < mirror.len() => return false,
            Start::Reset(_) => {}
            Start::Resume if shown.len() < mirror.len() => return false,
            Start::Resume => {}
        }
        let follows_on = at == db.reign && shown.starts_with(mirror);
        state.breaches.note_if(state.number(at) == state.number(db.reign) && !follows_on, Breach::WentBack);
        let one_item = self.scope.one_item;
        let stored = state.client_mut(client);
        (stored.mirror, stored.at) = (shown, db.reign);
        release(stored, safe);
        stored.holds = newest(stored.holds, shown, one_item);
        if self.scope.sync && state.record(db.reign).replica.is_some() {
            for (_, op) in shown.entries() {
                state.edits[usize::from(op.edit)].confirmed.get_or_insert(db.reign);
            }
        }
        true
    }

    fn where_to_start(&self, state: &State, at: Reign, mirror: Log, db: &Db) -> Start {
        let here = self.cursor(state, db.reign, db.log);
        let head = Head {
            group: GROUP,
            group_name: String::new(),
            root_key: PublicKey([0; 32]),
            epoch: here.epoch,
            sequence: here.sequence,
            chain: here.chain,
            tombstone_floor: Sequence::ZERO,
        };
        let known = mirror.len() <= db.log.len();
        let chain = known.then(|| self.cursor(state, db.reign, db.log.prefix(mirror.len())).chain);
        let cursor = self.cursor(state, at, mirror);
        match follow::start(Some(&cursor), &head, &self.lineage(state, db.reign), chain) {
            Start::RolledBack if known && !self.keeps(Guard::OtherHistoryIsRefused) => {
                Start::Reset(ResetReason::UnknownHistory)
            }
            start => start,
        }
    }

    /// Up to where a server may show its changes.
    pub fn shown(&self, state: &State, who: Who) -> u8 {
        let base = state.base(who);
        let Some(db) = base.disk.master else { return 0 };
        let waits = self.holds_back(&db) && self.keeps(Guard::ShowsWhatIsConfirmed);
        if waits { base.durable.min(db.log.len()) } else { db.log.len() }
    }

    pub(super) fn push(&self, state: &mut State, client: u8) -> bool {
        let (Client { link: Some(to), push: None, own, offers, .. }, by) = (*state.client(client), client)
        else {
            return false;
        };
        let own = own.first().map(|edit| Op { edit, mirrored_by: None });
        let op = own.or_else(|| offers.first().map(|edit| Op { edit, mirrored_by: Some(by) }));
        let (Some(op), Some(db)) = (op, state.served_by(to)) else { return false };
        let push = Push { to, reign: db.reign, op, step: Step::Sent, stale: false };
        state.client_mut(client).push = Some(push);
        true
    }

    pub(super) fn settle(&self, state: &mut State, client: u8) -> bool {
        let Some(push) = state.client_mut(client).push else { return false };
        let Step::Answered { sequence, safe } = push.step else { return false };
        let stored = state.client_mut(client);
        stored.push = None;
        if push.stale && self.keeps(Guard::AnswersBelongToAConnection) {
            return true;
        }
        let edit = push.op.edit;
        let keep = if self.keeps(Guard::RetainedUntilSafe) { sequence } else { 0 };
        if push.op.mirrored_by.is_none() {
            stored.own = stored.own.without(edit);
            stored.retained[usize::from(edit)] = keep;
        } else {
            stored.offers = stored.offers.without(edit);
            if stored.offers.is_empty() {
                stored.fork = (0, 0);
            }
            stored.retained_offers[usize::from(edit)] = keep;
        }
        release(stored, safe);
        let passed = stored.mirror.entries().any(|(_, op)| op.edit == edit);
        if push.op.mirrored_by.is_none() && !passed {
            stored.holds = stored.holds.with(edit);
        }
        if self.scope.sync && state.record(push.reign).replica.is_some() {
            state.edits[usize::from(edit)].confirmed.get_or_insert(push.reign);
        }
        true
    }

    pub(super) fn cut(&self, state: &mut State, client: u8) -> bool {
        // A connection on which nothing is under way is left by greeting elsewhere.
        let Client { link, push, owes, .. } = *state.client(client);
        if link.is_none() || (push.is_none() && owes.is_none()) {
            return false;
        }
        self.unlink(state, client);
        true
    }

    /// The connection is gone: what was sent may still be taken, and nobody hears the answer.
    pub(super) fn unlink(&self, state: &mut State, client: u8) {
        let takes_stale = !self.keeps(Guard::AnswersBelongToAConnection);
        let client = state.client_mut(client);
        (client.link, client.owes) = (None, None);
        client.push =
            client.push.take().map(|push| Push { stale: true, ..push }).filter(|push| match push.step {
                Step::Sent | Step::Admitted => true,
                Step::Written { .. } => false,
                Step::Answered { .. } => takes_stale,
            });
    }

    pub(super) fn lose_client(&self, state: &mut State, client: u8) -> bool {
        if state.client(client).lost {
            return false;
        }
        self.unlink(state, client);
        let lost = Client { lost: true, ..State::new().clients[0] };
        *state.client_mut(client) = lost;
        state.losses += 1;
        true
    }
}

fn retained(client: &Client, edit: Edit, offer: bool) -> u8 {
    (if offer { client.retained_offers } else { client.retained })[usize::from(edit)]
}

/// A second holder has everything up to `safe`.
fn release(client: &mut Client, safe: u8) {
    for sequence in client.retained.iter_mut().chain(&mut client.retained_offers) {
        if *sequence <= safe {
            *sequence = 0;
        }
    }
}

/// What a person sees of a mirror, and what it does not show any more because something newer is there.
fn newest(holds: Edits, mirror: Log, one_item: bool) -> Edits {
    let mut holds = holds;
    let mut before: Option<Edit> = None;
    for (_, op) in mirror.entries() {
        if let Some(before) = before.filter(|before| one_item && *before != op.edit) {
            holds = holds.without(before);
        }
        holds = holds.with(op.edit);
        before = Some(op.edit);
    }
    holds
}
