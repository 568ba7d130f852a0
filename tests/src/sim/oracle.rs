//! What must hold at a device after each commit, and between all devices at the end.

use std::rc::Rc;

use mfpsync_replication::round::{End, LinkState};
use mfpsync_storage::model::{ItemKey, Operation, Sequence};

use super::house::House;
use super::reigns::Line;
use super::translate;
use super::world::World;

impl World {
    /// I-04 for the cursor, and the low-water mark.
    pub(super) fn check_device(&mut self, device: usize) {
        let own = &mut self.devices[device];
        if !own.joined {
            return;
        }
        let (state, waiting) =
            own.read(|read| Ok((read.device()?, read.outbox(usize::MAX >> 1, usize::MAX)?)));
        let (floor, low_water) = (own.floor, own.low_water);
        own.low_water = state.low_water;
        if !state.resetting {
            own.floor = state.cursor.or(own.floor);
        }
        // A new reign takes back what was settled in the one before; a disk that was put back has no floor.
        let same_reign = floor.is_some_and(|floor| floor.epoch.number >= state.followed);
        self.require(
            (state.low_water >= low_water || !same_reign) && state.low_water <= state.last_operation,
            "I-03",
            format_args!("low water of device {device} fell, or passed its last operation"),
        );
        if let (Some(floor), false) = (floor, state.resetting) {
            // Whoever meets another reign with changes that it lacks reads everything anew.
            let anew = state.cursor.is_none() && state.followed > floor.epoch.number;
            let rose = state.cursor.is_some_and(|cursor| {
                (cursor.epoch == floor.epoch && cursor.sequence >= floor.sequence)
                    || cursor.epoch.number > floor.epoch.number
            });
            self.require(rose || anew, "I-04", format_args!("cursor of device {device} went back"));
        }
        for (number, record) in waiting {
            let operation = Operation::decode(&record).expect("a waiting operation");
            let builds_on = operation.edits.iter().filter_map(|edit| edit.base.after).min();
            let lowest = builds_on.unwrap_or(number).min(number);
            self.require(
                state.low_water < lowest,
                "I-03",
                format_args!(
                    "low water {} of device {device} passed operation {}, which waits or builds on it: {}",
                    state.low_water.0, lowest.0, number.0
                ),
            );
        }
    }

    /// I-07: what is forgotten up to here lives on at no member, not even beneath what it shows. One that was
    /// released is waited for no more: it has to be paired anew.
    pub(super) fn check_all_saw(&mut self, house: usize, through: Sequence) {
        let line = self.houses[house].line.clone();
        let gone = line.model.items.iter().filter(|(_, item)| item.deleted && item.sequence <= through.0);
        let gone: Vec<ItemKey> = gone
            .map(|([scope, kind, device, id], _)| ItemKey::parse(scope, kind, device, id).expect("a key"))
            .collect();
        for device in 0..self.devices.len() {
            let own = &self.devices[device];
            let is_member = self.houses[house].member(device).is_some_and(|row| !row.released);
            let counts = own.joined && !own.put_back && is_member;
            for key in counts.then_some(&gone).into_iter().flatten() {
                let mirrored = self.devices[device].read(|read| read.mirrored(key));
                let lives = mirrored.is_some_and(|mirrored| mirrored.fields.is_some());
                self.require(!lives, "I-07", format_args!("device {device} has not seen {key:?} deleted"));
            }
        }
    }

    /// I-06: all devices show what the master holds, and nothing waits.
    pub(super) fn agrees(&self) -> bool {
        self.disagreement().is_empty()
    }

    /// Who does not agree yet, and how.
    pub(super) fn disagreement(&self) -> String {
        if self.servers().len() != 1 || !self.all_right {
            return "the operator has not put everything right".to_owned();
        }
        let (head, hashes) =
            self.last_server().read(|read| Ok((read.founded_head()?, read.content_hashes()?)));
        for (number, device) in self.devices.iter().enumerate() {
            let (state, waiting) = device.read(|read| Ok((read.device()?, read.waiting()?)));
            let link = device.round.as_ref().map(|round| round.link_state());
            if waiting.operations > 0 {
                return format!("{} operations wait at device {number}, {link:?}", waiting.operations);
            }
            if state.cursor != Some(head.cursor()) || state.resetting {
                return format!("device {number} is not at the head, {link:?}");
            }
            let (mirror, visible) = device.read(|read| Ok((read.mirror_hashes()?, read.visible_hashes()?)));
            if mirror != hashes {
                return format!("the mirror of device {number} holds something else, {link:?}");
            }
            if self.last_line().switches.is_empty() && visible != hashes {
                return format!("device {number} shows something else than its mirror, {link:?}");
            }
            if !self.shows_what_is_its_own(number) {
                return format!("device {number} shows not what it shares or has for itself, {link:?}");
            }
            if !matches!(link, Some(LinkState::Following { caught_up: true, push_trouble: None, .. })) {
                return format!("device {number} is not following, {link:?}");
            }
        }
        String::new()
    }

    /// The server there is in the end.
    pub(super) fn last_server(&self) -> &House {
        &self.houses[self.present_server().expect("a server in the end")]
    }

    pub(super) fn last_line(&self) -> &Rc<Line> {
        &self.last_server().line
    }

    /// After the end: the model, the history and the chain.
    pub(super) fn final_checks(&mut self) {
        self.check_ended();
        self.check_model();
        self.check_sequences();
        self.check_history();
    }

    fn check_ended(&mut self) {
        for device in 0..self.devices.len() {
            let link = self.devices[device].round.as_ref().map(|round| round.link_state());
            let ended = matches!(link, Some(LinkState::Ended(End::Released | End::Quarantined)));
            self.require(!ended, "I-02", format_args!("device {device} was shut out: {link:?}"));
        }
    }

    /// Every item as the model has it, tombstones and sequences included; none besides.
    fn check_model(&mut self) {
        let line = self.last_line().clone();
        let items = &line.model.items;
        let living = items.values().filter(|item| !item.deleted).count() as u64;
        let (head, count) = self.last_server().read(|read| Ok((read.founded_head()?, read.item_count()?)));
        let (gave, modelled) = (head.sequence.0, line.model.head);
        self.require(
            gave == modelled,
            "I-03",
            format_args!("the master gave {gave} sequences, the model {modelled}"),
        );
        self.require(count == living, "I-03", format_args!("{count} items live, {living} in the model"));
        for ([scope, kind, device, id], item) in items {
            let key = ItemKey::parse(scope, kind, device, id).expect("a key");
            let held = self.last_server().read(|read| read.item(&key));
            let same = held.is_some_and(|held| {
                held.deleted == item.deleted
                    && held.sequence.0 == item.sequence
                    && translate::fields(&held.fields) == item.fields
            });
            self.require(same, "I-05", format_args!("item {key:?} of kind {kind} is not as in the model"));
        }
    }

    /// I-04: every sequence up to the head was given once, to one operation, and has its chain.
    fn check_sequences(&mut self) {
        let head = self.last_server().head();
        let line = self.last_line().clone();
        let mut given: Vec<u64> = line.switches.iter().copied().collect();
        for decision in line.decisions.values() {
            if let Some(revision) = decision.outcome.revision() {
                given.push(revision.sequence.0);
            }
        }
        for sequence in 1..=head.sequence.0 {
            let at = Sequence(sequence);
            let (chain, author) =
                self.last_server().read(|read| Ok((read.chain_at(at)?, read.author_of(at)?)));
            let known = chain.is_some() && author.is_some() && given.contains(&sequence);
            self.require(known, "I-04", format_args!("sequence {sequence} belongs to no accepted operation"));
        }
    }
}
