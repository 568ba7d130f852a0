//! What must hold at every moment, and what must be possible.

use stateright::Property;

use super::act::Act;
use super::client::Refusal;
use super::scope::Model;
use super::state::{Breach, Db, Edits, Image, State, Takeover, Who};

pub const ONE_WRITABLE: &str = "I-13 one writable server in an epoch";
pub const ONE_SUCCESSOR: &str = "I-13 one reign of a number";
pub const ENDS_BY_SUCCESSOR: &str = "I-13 a reign ends by one that began";
pub const SEALED_IS_SILENT: &str = "I-14 a server takes nothing after the end of its reign";
pub const NOTHING_ENDED: &str = "I-15 the replica takes nothing of an ended reign";
pub const SYNC_OUTLASTS: &str =
    "I-16, I-17 with sync a promotion loses nothing that was shown or acknowledged";
pub const NOT_LOST: &str = "I-17 a device's acknowledged and seen edits reach the reign it follows";
pub const PLAN_IS_LOSSLESS: &str = "I-17 a planned promotion leaves nothing behind";
pub const CONTESTED_IS_STILL: &str = "I-13 a server that is shown another reign of its number takes nothing";
pub const RECORD_IS_TRUE: &str = "I-13 a record says what its reign took over";
pub const ONCE: &str = "I-03 no operation has an effect twice";
pub const NO_REUSE: &str = "no sequence is knowingly given twice";
pub const NEVER_BACK: &str =
    "I-04 no device goes from one history of a reign to another, or to another reign of its number";
pub const NOT_DISCARDED: &str = "no copy is replaced that has what its server lacks";
pub const GETS_THERE: &str = "I-06 whoever is not refused for a reason gets there";

pub const SURPLUS: &str = "a reign began without the last changes of the one before";
pub const SEALED: &str = "a returned server was sealed by a hello";
pub const OFFERED: &str = "a retained edit reached the next reign";
pub const RECOVERED: &str = "the replica follows the recovered server";
pub const COMMITTED_UNHEARD: &str = "a recovery is activated and the spare machine does not know";
pub const TAKEN_AGAIN: &str = "a recovery went on after its spare machine was lost";
pub const FORK_REFUSED: &str = "a device was shown two reigns of one number";
pub const ROLLED_BACK: &str = "a rolled back server was told";
pub const PUT_BACK: &str = "an older edit went over one whose author had seen it";

impl stateright::Model for Model {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![State::new()]
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        self.acts(state, acts);
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        self.after(state, act)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_WRITABLE, one_writable),
            Property::always(ONE_SUCCESSOR, one_successor),
            Property::always(ENDS_BY_SUCCESSOR, ends_by_successor),
            Property::always(SEALED_IS_SILENT, |_, state| never(state, Breach::TookAfterItsEnd)),
            Property::always(NOTHING_ENDED, |_, state| never(state, Breach::TookOfAnEndedReign)),
            Property::always(SYNC_OUTLASTS, sync_outlasts),
            Property::always(NOT_LOST, not_lost),
            Property::always(PLAN_IS_LOSSLESS, |_, state| never(state, Breach::PlannedLoss)),
            Property::always(CONTESTED_IS_STILL, |_, state| never(state, Breach::TookWhileContested)),
            Property::always(RECORD_IS_TRUE, |_, state| never(state, Breach::FalseRecord)),
            Property::always(ONCE, once),
            Property::always(NO_REUSE, |_, state| never(state, Breach::ReusedKnowingly)),
            Property::always(NEVER_BACK, |_, state| never(state, Breach::WentBack)),
            Property::always(NOT_DISCARDED, |_, state| never(state, Breach::Discarded)),
            Property::always(GETS_THERE, gets_there),
            Property::sometimes(SURPLUS, |_, state| surplus(state)),
            Property::sometimes(SEALED, |_, state: &State| state.bases.iter().any(|base| base.answered)),
            Property::sometimes(OFFERED, |_, state| offered(state)),
            Property::sometimes(RECOVERED, |_, state| recovered(state)),
            Property::sometimes(COMMITTED_UNHEARD, |_, state| committed_unheard(state)),
            Property::sometimes(TAKEN_AGAIN, |_, state| taken_again(state)),
            Property::sometimes(FORK_REFUSED, fork_refused),
            Property::sometimes(ROLLED_BACK, |_, state: &State| state.bases.iter().any(|base| base.told)),
            Property::sometimes(PUT_BACK, |_, state: &State| state.breaches.has(Breach::PutBack)),
        ]
    }
}

fn never(state: &State, breach: Breach) -> bool {
    !state.breaches.has(breach)
}

/// The databases of servers that take changes.
fn writable(state: &State) -> impl Iterator<Item = (Who, Db)> {
    let takes = |who: &Who| !state.base(*who).sealed;
    Who::ALL.into_iter().filter(takes).filter_map(|who| Some((who, *state.served_by(who)?)))
}

fn one_writable(model: &Model, state: &State) -> bool {
    let mut pairs = writable(state).flat_map(|one| writable(state).map(move |other| (one, other)));
    pairs.all(|((one, its), (other, theirs))| {
        one == other || model.epoch(state, its.reign) != model.epoch(state, theirs.reign)
    })
}

fn one_successor(_: &Model, state: &State) -> bool {
    let opened = || state.reigns.iter().filter(|record| record.opened && !record.put_back);
    opened().all(|one| opened().filter(|other| other.number == one.number).count() == 1)
}

fn ends_by_successor(_: &Model, state: &State) -> bool {
    let mut sealed = state.bases.iter().filter(|base| base.sealed).filter_map(|base| base.disk.master);
    let highest = state.reigns.iter().map(|record| record.number).max().unwrap_or_default();
    sealed.all(|db| state.number(db.reign) < highest)
}

fn sync_outlasts(model: &Model, state: &State) -> bool {
    let confirmed = |edit: u8| Some((edit, state.edits[usize::from(edit)].confirmed?));
    !model.scope.sync
        || (0..state.made).filter_map(confirmed).all(|(edit, by)| {
            let later = (0..state.begun).filter(|reign| state.follows(*reign, by));
            later
                .map(|reign| state.record(reign))
                .all(|record| !record.stands || record.put_back || record.had.has(edit))
        })
}

pub fn not_lost(model: &Model, state: &State) -> bool {
    // A replica whose disk was put back, besides a lost server, is one fault too many.
    let put_back = |who| model.scope.put_back == Some(who) && state.image == Image::Used;
    put_back(Who::Replica)
        || state.clients.iter().zip(0..).all(|(client, number)| {
            let Some(db) = client.link.and_then(|who| state.served_by(who)) else { return true };
            // Of a history that was given twice everybody answers for what was made there.
            let made = |edit: &u8, number: u8| state.edits[usize::from(*edit)].by == number;
            let holds = |holds: Edits, number: u8| {
                let others = (0..state.made).filter(|edit| put_back(Who::Server) && !made(edit, number));
                others.fold(holds, Edits::without)
            };
            let done = client.push.is_none() && client.own.is_empty() && client.offers.is_empty();
            let there = client.at == db.reign && client.mirror == db.log;
            !done || !there || client.owes.is_some() || holds(client.holds, number).within(db.ledger.edits())
        })
}

fn once(_: &Model, state: &State) -> bool {
    let logs = state.bases.iter().flat_map(|base| [base.disk.master, base.disk.copy]).flatten();
    logs.map(|db| db.log).all(|log| {
        log.entries()
            .enumerate()
            .all(|(at, (_, op))| log.entries().skip(at + 1).all(|(_, later)| later != op))
    })
}

/// When all edits are made, nothing is on its way and one server serves, each client is there or has a step
/// to take, unless it is refused for a reason that needs a person.
fn gets_there(model: &Model, state: &State) -> bool {
    let mut serving = writable(state);
    let (Some((who, db)), None) = (serving.next(), serving.next()) else { return true };
    let base = state.base(who);
    let under_way = state.bases.iter().any(|base| base.disk.takeover != Takeover::None);
    // With `sync` a server holds what no replica confirms.
    let held = model.scope.sync && base.durable < db.log.len();
    if under_way
        || held
        || base.contested
        || base.told
        || base.standing_down
        || state.made < model.scope.edits
    {
        return true;
    }
    (0..model.scope.clients).all(|number| {
        let client = state.client(number);
        let there = client.link == Some(who) && client.at == db.reign && client.mirror == db.log;
        let done = there && client.push.is_none() && client.own.is_empty() && client.offers.is_empty();
        let steps = [
            Act::Greet(number, who),
            Act::Pull(number),
            Act::Push(number),
            Act::Write(number),
            Act::Acknowledge(number),
            Act::Settle(number),
            Act::Cut(number),
            Act::Offer(number),
            Act::Connect(who),
            Act::Ship { heard: true },
        ];
        let refused = matches!(
            model.judge(state, number, &db),
            Err(Refusal::Forked | Refusal::RolledBack | Refusal::Superseded)
        );
        client.lost || done || refused || steps.iter().any(|step| model.after(state, *step).is_some())
    })
}

fn surplus(state: &State) -> bool {
    let masters = state.bases.iter().filter_map(|base| base.disk.master);
    masters.into_iter().any(|db| {
        let children = state.reigns.iter().filter(|record| record.parent == Some(db.reign));
        children.into_iter().any(|record| record.fork.len() < db.log.len())
    })
}

fn offered(state: &State) -> bool {
    let begun = |base: &super::state::Base| base.disk.master.filter(|db| db.reign > 0);
    state.bases.iter().filter_map(begun).any(|db| {
        let fork = state.record(db.reign).fork.len();
        let mut beyond = db.log.entries().skip(fork.into());
        beyond.any(|(_, op)| op.mirrored_by.is_none() && state.edits[usize::from(op.edit)].base.0 == 1)
    })
}

fn recovered(state: &State) -> bool {
    let spare = state.served_by(Who::Spare).copied();
    spare.is_some_and(|db| state.base(Who::Replica).disk.copy == Some(db) && db.reign > 0)
}

fn committed_unheard(state: &State) -> bool {
    let proposed = state.base(Who::Spare).disk.takeover;
    matches!(proposed, Takeover::Proposed(reign) if state.base(Who::Replica).disk.seen == reign)
}

fn taken_again(state: &State) -> bool {
    let over = |parent: Option<u8>| parent.map_or(u8::MAX, |parent| state.number(parent) + 1);
    state.reigns.iter().any(|record| record.opened && record.number > over(record.parent))
}

fn fork_refused(model: &Model, state: &State) -> bool {
    let shown =
        |client: u8| writable(state).any(|(_, db)| model.judge(state, client, &db) == Err(Refusal::Forked));
    state.image == Image::Used && (shown(0) || shown(1))
}
