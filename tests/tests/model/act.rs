//! What can happen next. Each act is one step that is durable or lost as a whole; whatever is between two of
//! them is cut by a power failure or by another device's act.

use super::guard::Guard;
use super::scope::{Appoints, Model};
use super::state::{State, Who};

/// Whether a server hears that a copy has what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Yes,
    No,
}

/// What became of the server from which a replica takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Lost,
    HandedOver,
}

/// One step of somebody; clients are named by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A person edits at a client.
    Edit(u8),
    /// A client hears of the highest reign there is.
    Hear(u8),
    /// A client says hello, and takes in the answer.
    Greet(u8, Who),
    /// A client offers to the reign it met: only where that is a step of its own.
    Offer(u8),
    /// A client stores what its server sends.
    Pull(u8),
    /// A client sends the first operation that waits.
    Push(u8),
    /// The server finds it acceptable: only where that is a step of its own.
    Admit(u8),
    /// The server decides and writes it.
    Write(u8),
    /// The server acknowledges it.
    Acknowledge(u8),
    /// The client stores the answer.
    Settle(u8),
    /// A client's connection is cut, or its process ends.
    Cut(u8),
    /// An operator makes a machine the replica of a server.
    Appoint(Who, Who),
    /// A machine that does not serve says hello to a server, and takes in the answer.
    Meet(Who, Who),
    /// Its master database of before becomes its copy.
    Seed(Who),
    /// A replica connects to a server.
    Connect(Who, Who),
    /// A replica stores what its server has; `heard`: the server gets to know.
    Ship(Who, Heard),
    /// A replica has its server stand down.
    StandDown(Who),
    /// A server that stands down has waited long enough.
    GoOn(Who),
    /// The operator decides at a replica; `planned`: when the server has stood down.
    Promote(Who, Way),
    /// The server that stands down says so once more.
    AskAgain(Who),
    /// A replica does not become the server after all.
    TakeBack(Who),
    /// The replica signs the record and writes it to the control file.
    Decide(Who),
    /// The copy's file is renamed.
    Place(Who),
    /// The record becomes part of the master database.
    Reign(Who),
    /// The control file forgets the takeover.
    EndTakeover(Who),
    /// An operator chooses a server where two claim the group.
    Stay(Who),
    /// Its control file gets to know of that.
    Note(Who),
    /// A server asks another one.
    Ask(Who, Who),
    /// A server opens its port.
    Open(Who),
    /// The part of a sealed server has ended.
    Stop(Who),
    /// A server's process ends.
    Crash(Who),
    /// An operator starts the server part where a reign ended.
    StartServer(Who),
    /// Somebody claims that another device reigns.
    Claim(Who),
    /// A machine is lost, with its disk.
    Lose(Who),
    /// A client is lost, with its disk.
    LoseClient(u8),
    /// A disk's image is taken.
    Copy(Who),
    /// It is put back.
    PutBack(Who),
}

impl Model {
    /// All acts of the scope, whether they are possible just now or not.
    pub fn acts(&self, state: &State, acts: &mut Vec<Act>) {
        let scope = &self.scope;
        for client in 0..scope.clients {
            acts.extend(
                [
                    Act::Edit(client),
                    Act::Pull(client),
                    Act::Push(client),
                    Act::Write(client),
                    Act::Acknowledge(client),
                    Act::Settle(client),
                    Act::Cut(client),
                ]
                .iter()
                .filter(|_| !state.client(client).lost),
            );
            acts.extend(Who::ALL.map(|who| Act::Greet(client, who)));
            self.when(scope.gossip, Act::Hear(client), acts);
            self.when(!self.keeps(Guard::MetAndOfferedAtOnce), Act::Offer(client), acts);
            self.when(!self.keeps(Guard::DecidedInTheWriter), Act::Admit(client), acts);
            self.when(state.losses < scope.losses, Act::LoseClient(client), acts);
        }
        for who in Who::ALL {
            acts.extend([Act::Open(who), Act::Stop(who), Act::Crash(who), Act::GoOn(who)]);
            acts.extend([Act::Ship(who, Heard::Yes), Act::Ship(who, Heard::No), Act::StandDown(who)]);
            for other in Who::ALL.into_iter().filter(|other| *other != who) {
                acts.extend([Act::Connect(who, other), Act::Ask(who, other)]);
                let (spare, appoints) = (who == Who::Spare, scope.appoints);
                let comes = appoints != Appoints::Never;
                self.when(scope.moves() && (comes || !spare), Act::Meet(who, other), acts);
                self.when((comes && spare) || appoints == Appoints::Any, Act::Appoint(who, other), acts);
            }
            if scope.promotion {
                acts.extend([Act::Promote(who, Way::Lost), Act::Promote(who, Way::HandedOver)]);
                acts.extend([Act::Decide(who), Act::Place(who), Act::Reign(who), Act::EndTakeover(who)]);
                if scope.planned {
                    acts.extend([Act::AskAgain(who), Act::TakeBack(who)]);
                }
            }
            self.when(scope.moves(), Act::Seed(who), acts);
            if scope.stay {
                acts.extend([Act::Stay(who), Act::Note(who)]);
            }
            self.when(scope.claims, Act::Claim(who), acts);
            self.when(state.losses < scope.losses, Act::Lose(who), acts);
            if scope.put_back == Some(who) {
                acts.extend([Act::Copy(who), Act::PutBack(who)]);
            }
        }
        self.when(!self.keeps(Guard::StartsNotBelowWhatWasSeen), Act::StartServer(Who::Server), acts);
    }

    fn when(&self, may: bool, act: Act, acts: &mut Vec<Act>) {
        if may {
            acts.push(act);
        }
    }

    /// The state after an act; none where it is not possible or changes nothing.
    pub fn after(&self, state: &State, act: Act) -> Option<State> {
        let mut next = *state;
        let possible = match act {
            Act::Edit(client) => self.edit(&mut next, client),
            Act::Hear(client) => self.hear(&mut next, client),
            Act::Greet(client, who) => self.greet(&mut next, client, who),
            Act::Offer(client) => self.offer_late(&mut next, client),
            Act::Pull(client) => self.pull(&mut next, client),
            Act::Push(client) => self.push(&mut next, client),
            Act::Admit(client) => self.admit(&mut next, client),
            Act::Write(client) => self.write(&mut next, client),
            Act::Acknowledge(client) => self.acknowledge(&mut next, client),
            Act::Settle(client) => self.settle(&mut next, client),
            Act::Cut(client) => self.cut(&mut next, client),
            Act::Appoint(who, at) => self.appoint(&mut next, who, at),
            Act::Meet(who, at) => self.meet(&mut next, who, at),
            Act::Seed(who) => self.seed(&mut next, who),
            Act::Connect(who, to) => self.connect(&mut next, who, to),
            Act::Ship(who, heard) => self.ship(&mut next, who, heard == Heard::Yes),
            Act::StandDown(who) => self.stand_down(&mut next, who),
            Act::GoOn(who) => self.go_on(&mut next, who),
            Act::Promote(who, way) => self.promote(&mut next, who, way == Way::HandedOver),
            Act::AskAgain(who) => self.ask_again(&mut next, who),
            Act::TakeBack(who) => self.take_back(&mut next, who),
            Act::Decide(who) => self.decide(&mut next, who),
            Act::Place(who) => self.place(&mut next, who),
            Act::Reign(who) => self.reign(&mut next, who),
            Act::EndTakeover(who) => self.end_takeover(&mut next, who),
            Act::Stay(who) => self.stay(&mut next, who),
            Act::Note(who) => self.note(&mut next, who),
            Act::Ask(who, other) => self.ask(&mut next, who, other),
            Act::Open(who) => self.open(&mut next, who),
            Act::Stop(who) => self.stop(&mut next, who),
            Act::Crash(who) => self.crash(&mut next, who),
            Act::StartServer(who) => self.start_server(&mut next, who),
            Act::Claim(who) => self.claim(&mut next, who),
            Act::Lose(who) => self.lose(&mut next, who),
            Act::LoseClient(client) => self.lose_client(&mut next, client),
            Act::Copy(who) => self.copy(&mut next, who),
            Act::PutBack(who) => self.put_back(&mut next, who),
        };
        (possible && next != *state).then_some(next)
    }
}
