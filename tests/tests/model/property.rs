//! What must hold at every moment, and what must be possible.

use stateright::Property;

use super::act::{Act, Heard};
use super::client::Refusal;
use super::scope::Model;
use super::state::{Breach, Db, Edits, Image, Record, Role, State, Takeover, Who};

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
pub const NOT_DISCARDED: &str =
    "no copy is replaced, and no database becomes one, that has what its server lacks";
pub const OVER_UNSEEN: &str =
    "I-08 an edit is taken for one that builds on another only where its author saw that";
pub const CHOICE_HOLDS: &str =
    "I-08 who followed a reign that was ended by a choice goes over to the chosen one";
pub const FINISHES: &str = "I-10 a takeover that is decided can be finished";
pub const IS_FED: &str = "I-06 whoever is the replica is fed, or refused for a reason";
pub const GETS_THERE: &str = "I-06 whoever is not refused for a reason gets there";

pub const SURPLUS: &str = "a reign began without the last changes of the one before";
pub const SEALED: &str = "a returned server was sealed by a hello";
pub const OFFERED: &str = "a retained edit reached the next reign";
pub const RECOVERED: &str = "the replica follows the recovered server";
pub const SWAPPED: &str = "a server and its replica have exchanged their roles";
pub const HANDED_BACK: &str = "a machine reigns again by a handover";
pub const REUSED: &str = "the database of before became the copy";
pub const NOT_TAKEN_OVER: &str = "a server that had stood down went on, and its replica follows again";
pub const MOVED_TWICE: &str = "a recovery went on after its spare machine was lost";
pub const CONTESTED: &str = "two servers know that both claim the group";
pub const CHOSEN: &str = "a change of the reign that was ended reached the chosen one";
pub const CHOSEN_TWICE: &str = "both were chosen, and then one of them";
pub const FORK_REFUSED: &str = "a device was shown two reigns of one number";
pub const ROLLED_BACK: &str = "a rolled back server was told";
pub const PUT_BACK: &str = "an older edit went over one whose author had seen it";

impl stateright::Model for Model {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        vec![self.begins()]
    }

    fn actions(&self, state: &State, acts: &mut Vec<Act>) {
        self.acts(state, acts);
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        self.after(state, act)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
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
            Property::always(OVER_UNSEEN, |_, state| never(state, Breach::OverUnseen)),
            Property::always(FINISHES, finishes),
            Property::always(IS_FED, is_fed),
            Property::always(GETS_THERE, gets_there),
            Property::sometimes(SURPLUS, |_, state| surplus(state)),
            Property::sometimes(SEALED, |_, state: &State| state.bases.iter().any(|base| base.answered)),
            Property::sometimes(OFFERED, |_, state| offered(state)),
            Property::sometimes(FORK_REFUSED, fork_refused),
            Property::sometimes(ROLLED_BACK, |_, state: &State| state.bases.iter().any(|base| base.told)),
            Property::sometimes(PUT_BACK, |_, state: &State| state.breaches.has(Breach::PutBack)),
        ];
        // What cannot happen in a scope need not be looked for in each state.
        if self.scope.moves() {
            properties.extend([
                Property::sometimes(RECOVERED, |_, state| recovered(state)),
                Property::sometimes(SWAPPED, |_, state| swapped(state)),
                Property::sometimes(HANDED_BACK, |_, state| handed_back(state)),
                Property::sometimes(REUSED, |_, state| reused(state)),
                Property::sometimes(NOT_TAKEN_OVER, |_, state| not_taken_over(state)),
                Property::sometimes(MOVED_TWICE, |_, state| moved_twice(state)),
            ]);
        }
        if self.scope.stay {
            properties.extend([
                Property::always(CHOICE_HOLDS, choice_holds),
                Property::sometimes(CONTESTED, |_, state| contested(state)),
                Property::sometimes(CHOSEN, |_, state| chosen(state)),
                Property::sometimes(CHOSEN_TWICE, |_, state| chosen_twice(state)),
            ]);
        }
        properties
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

/// Two reigns of one number are nobody's fault but an operator's, who named another replica, or a disk's that was
/// put back; whatever follows from those may be two of a number as well.
fn one_successor(_: &Model, state: &State) -> bool {
    let told_apart = |reign: u8| {
        let mut line = state.line(reign).map(|reign| state.record(reign));
        line.any(|record| record.put_back || record.replaced)
    };
    let opened = || (0..state.begun).filter(|reign| state.record(*reign).opened && !told_apart(*reign));
    opened().all(|one| opened().filter(|other| state.number(*other) == state.number(one)).count() == 1)
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
            later.map(|reign| state.record(reign)).all(|record| {
                !record.stands || record.put_back || strange(state, record) || record.had.has(edit)
            })
        })
}

/// Made by a device in whose place an operator had named another one, before that or after: what is confirmed is so by
/// that one.
fn strange(state: &State, record: &Record) -> bool {
    let parent = record.parent.map(|parent| state.record(parent));
    record.over.is_empty() && parent.is_some_and(|parent| parent.replica != record.device)
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
            let found = db.ledger.edits().and(kept_beside(model, state));
            !done || !there || client.owes.is_some() || holds(client.holds, number).within(found)
        })
}

/// Where an operator named another replica while the one before takes over, a reign that parted from the one that is
/// followed may have called safe what its author has not mirrored. Whose machine has it offers it as a client.
fn kept_beside(model: &Model, state: &State) -> Edits {
    if !model.scope.moves() || !state.reigns.iter().any(|record| record.replaced) {
        return Edits::default();
    }
    let kept = state.bases.iter().flat_map(|base| [base.disk.master, base.disk.copy]).flatten();
    kept.fold(Edits::default(), |edits, db| edits.and(db.ledger.edits()))
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
    let held = model.holds_back(&db) && base.durable < db.log.len();
    if under_way
        || held
        || !base.rivals.is_empty()
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
        ];
        let refused = || {
            matches!(
                model.judge(state, number, &db),
                Err(Refusal::Forked | Refusal::RolledBack | Refusal::Superseded)
            )
        };
        client.lost || done || steps.iter().any(|step| model.after(state, *step).is_some()) || refused()
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

fn swapped(state: &State) -> bool {
    let server = |who: Who| state.base(who).stream.and_then(|server| state.served_by(server));
    Who::ALL.into_iter().any(|who| {
        let copy = state.base(who).disk.copy;
        let was = |db: &Db| state.record(db.reign).parent.map(|parent| state.record(parent).device);
        server(who).is_some_and(|db| copy == Some(*db) && was(db) == Some(Some(who)))
    })
}

fn handed_back(state: &State) -> bool {
    Who::ALL.into_iter().filter_map(|who| state.served_by(who)).any(|db| {
        let of = state.record(db.reign).device;
        let mut line = state.line(db.reign).skip(1).map(|reign| state.record(reign));
        state.record(db.reign).handed_over && line.any(|record| record.device == of)
    })
}

fn reused(state: &State) -> bool {
    Who::ALL.into_iter().any(|who| {
        let disk = &state.base(who).disk;
        let own = disk.copy.filter(|copy| state.record(copy.reign).device == Some(who));
        disk.role == Role::Replica && own.is_some_and(|copy| copy.reign != disk.seen)
    })
}

fn not_taken_over(state: &State) -> bool {
    Who::ALL.into_iter().any(|server| {
        let base = state.base(server);
        let replica = state.served_by(server).and_then(|db| db.replica).filter(|who| *who != Who::Gone);
        let follows = replica.is_some_and(|who| state.base(who).disk.role == Role::Replica);
        base.drained && !base.standing_down && follows
    })
}

fn moved_twice(state: &State) -> bool {
    let by = |who| state.reigns.iter().any(|record| record.opened && record.device == Some(who));
    by(Who::Gone) && by(Who::Spare)
}

/// The reigns of a history that an operator began by a choice.
fn choices(state: &State, reign: u8) -> impl Iterator<Item = &Record> {
    state.line(reign).map(|reign| state.record(reign)).filter(|record| !record.over.is_empty())
}

fn contested(state: &State) -> bool {
    state.bases.iter().filter(|base| base.serving && !base.rivals.is_empty()).count() > 1
}

fn chosen(state: &State) -> bool {
    let left = || state.bases.iter().filter(|base| !base.serving).filter_map(|base| base.disk.master);
    Who::ALL.into_iter().filter_map(|who| state.served_by(who)).any(|db| {
        let mut ended =
            left().filter(|left| choices(state, db.reign).any(|choice| choice.over.has(left.reign)));
        ended.any(|left| {
            let fork = state.record(left.reign).fork.len();
            let mut tail = left.log.entries().skip(fork.into()).map(|(_, op)| op.edit);
            tail.any(|edit| db.ledger.edits().has(edit))
        })
    })
}

fn chosen_twice(state: &State) -> bool {
    let choice = |reign: u8| !state.record(reign).over.is_empty();
    (0..state.begun).any(|reign| state.record(reign).over.all().any(choice))
}

/// Nobody who followed a reign that an operator ended is refused as one of two any more.
pub fn choice_holds(model: &Model, state: &State) -> bool {
    let over = |db: &Db, met: u8| choices(state, db.reign).any(|choice| choice.over.has(met));
    writable(state).all(|(_, db)| {
        (0..model.scope.clients).all(|number| {
            let client = state.client(number);
            let met = over(&db, client.followed) && over(&db, client.highest);
            !met || model.judge(state, number, &db) != Err(Refusal::Forked)
        })
    })
}

fn finishes(model: &Model, state: &State) -> bool {
    Who::ALL.into_iter().all(|who| match state.base(who).disk.takeover {
        Takeover::None | Takeover::Begun { .. } => true,
        Takeover::Decided(_) => model.after(state, Act::Place(who)).is_some(),
        Takeover::Placed(_) => {
            [Act::Reign(who), Act::EndTakeover(who)].iter().any(|act| model.after(state, *act).is_some())
        }
    })
}

/// The device that a server has for its replica has its copy, or a step to take, unless a person is needed.
fn is_fed(model: &Model, state: &State) -> bool {
    let mut serving = writable(state);
    let (Some((server, db)), None) = (serving.next(), serving.next()) else { return true };
    let Some(who) = db.replica.filter(|who| *who != Who::Gone) else { return true };
    let base = state.base(server);
    let replica = state.base(who);
    let steps =
        [Act::Seed(who), Act::Connect(who, server), Act::Ship(who, Heard::Yes), Act::Meet(who, server)];
    let moves = model.scope.moves() || replica.disk.role == Role::Replica;
    let fed = replica.stream == Some(server) && replica.disk.copy == Some(db);
    let refused = base.told || !base.rivals.is_empty();
    let other = || !replica.disk.copy.is_none_or(|copy| model.is_part(state, &copy, &db));
    let forked = || !model.continues(state, replica.disk.seen, db.reign);
    !moves
        || fed
        || refused
        || replica.lost
        || replica.serving
        || replica.disk.role == Role::Server
        || other()
        || (forked() && state.record(replica.disk.seen).begun)
        || steps.iter().any(|step| model.after(state, *step).is_some())
}

fn fork_refused(model: &Model, state: &State) -> bool {
    let shown =
        |client: u8| writable(state).any(|(_, db)| model.judge(state, client, &db) == Err(Refusal::Forked));
    state.image == Image::Used && (shown(0) || shown(1))
}
