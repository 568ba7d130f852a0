//! Folds what repeats and bounds what is kept. Pure: time is an argument, nothing is written here.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use mfpsync_storage::model::DeviceId;

use super::code::{Code, Fold, Level};

/// The span of [`Fold::Hour`] and [`Fold::Lasting`].
const HOUR: u64 = 60 * 60 * 1_000;
/// An entry that goes on being folded into is written again after so long.
const REWRITE: u64 = 10 * 60 * 1_000;
/// What a written line takes beside its texts: numbers, names of fields, a device's id.
const LINE: u64 = 240;
/// What a count takes beside its name.
const COUNT: u64 = 24;
/// Reasons and addresses are short; a longer one is cut.
const TEXT_BYTES: usize = 100;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    code: Code,
    peer: Option<DeviceId>,
    address: String,
    reason: String,
    counts: BTreeMap<String, u64>,
}

impl Event {
    /// It, and nothing more.
    #[must_use]
    pub fn new(code: Code) -> Self {
        Self { code, peer: None, address: String::new(), reason: String::new(), counts: BTreeMap::new() }
    }

    /// With this device.
    #[must_use]
    pub fn peer(self, peer: DeviceId) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// At this network address.
    #[must_use]
    pub fn address(self, address: impl ToString) -> Self {
        Self { address: short(address.to_string()), ..self }
    }

    /// For this reason, a stable word.
    #[must_use]
    pub fn reason(self, reason: impl Into<String>) -> Self {
        Self { reason: short(reason.into()), ..self }
    }

    /// So many of these; none is not said.
    #[must_use]
    pub fn count(mut self, name: &str, many: u64) -> Self {
        if many > 0 {
            self.counts.insert(name.to_owned(), many);
        }
        self
    }
}

fn short(mut text: String) -> String {
    // Each may take six bytes when it is written.
    text.retain(|c| !c.is_control());
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

/// Something that happened once, or again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Rises; never given twice.
    pub number: u64,
    /// When it happened first, in Unix milliseconds; informs only.
    pub first: u64,
    /// When it happened last.
    pub last: u64,
    /// How often.
    pub times: u64,
    /// What.
    pub code: Code,
    /// With whom.
    pub peer: Option<DeviceId>,
    /// Where, the last time.
    pub address: String,
    /// Why.
    pub reason: String,
    /// Sums over all times.
    pub counts: BTreeMap<String, u64>,
}

impl Entry {
    /// At least the bytes its line takes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let counts: u64 = self.counts.keys().map(|name| 2 * name.len() as u64 + COUNT).sum();
        LINE + 2 * (self.reason.len() + self.address.len()) as u64 + counts
    }

    fn takes(&self, now: u64) -> bool {
        match self.code.fold() {
            Fold::Never => false,
            Fold::Hour => now.saturating_sub(self.first) < HOUR,
            Fold::Lasting => now.saturating_sub(self.last) < HOUR,
        }
    }
}

/// How much is kept at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Entries.
    pub entries: usize,
    /// Bytes of them as written.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 5_000, bytes: 1 << 20 }
    }
}

/// What is asked for; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// This level and above.
    pub level: Option<Level>,
    /// Any of these codes.
    pub codes: Vec<Code>,
    /// Any of these devices.
    pub peers: Vec<DeviceId>,
    /// Last at this time or later.
    pub since: u64,
    /// First before this time.
    pub until: Option<u64>,
}

impl Filter {
    /// Whether an entry is asked for.
    #[must_use]
    pub fn admits(&self, entry: &Entry) -> bool {
        self.level.is_none_or(|level| entry.code.level() >= level)
            && (self.codes.is_empty() || self.codes.contains(&entry.code))
            && (self.peers.is_empty() || entry.peer.is_some_and(|peer| self.peers.contains(&peer)))
            && entry.last >= self.since
            && self.until.is_none_or(|until| entry.first < until)
    }
}

/// Entries, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most as many as were asked for.
    pub entries: Vec<Entry>,
    /// Older ones begin before this number; none when there are no more.
    pub next: Option<u64>,
}

/// What makes two events the same.
type Likeness = (Code, Option<DeviceId>, String);

#[derive(Debug)]
struct Slot {
    entry: Entry,
    written_times: u64,
    written_at: u64,
}

/// The entries, oldest first.
#[derive(Debug)]
pub struct Ledger {
    bounds: Bounds,
    slots: VecDeque<Slot>,
    bytes: u64,
    next: u64,
    /// The newest entry of each likeness.
    newest: HashMap<Likeness, u64>,
    due: BTreeSet<u64>,
}

impl Ledger {
    /// Entries that were written, oldest first.
    #[must_use]
    pub fn new(bounds: Bounds, entries: Vec<Entry>) -> Self {
        let next = entries.last().map_or(1, |last| last.number.saturating_add(1));
        let mut ledger = Self {
            bounds,
            slots: VecDeque::new(),
            bytes: 0,
            next,
            newest: HashMap::new(),
            due: BTreeSet::new(),
        };
        for entry in entries {
            let (written_times, written_at) = (entry.times, entry.last);
            ledger.add(Slot { entry, written_times, written_at });
        }
        ledger
    }

    /// Notes an event, by folding it into an entry or as a new one, and returns that.
    pub fn record(&mut self, event: Event, now: u64) -> Entry {
        let likeness = (event.code, event.peer, event.reason.clone());
        let known = self.newest.get(&likeness).and_then(|number| self.place(*number));
        match known.filter(|place| self.slots[*place].entry.takes(now)) {
            Some(place) => self.fold(place, event, now),
            None => {
                let Event { code, peer, address, reason, counts } = event;
                let number = self.next;
                self.next += 1;
                let entry =
                    Entry { number, first: now, last: now, times: 1, code, peer, address, reason, counts };
                self.due.insert(number);
                self.add(Slot { entry: entry.clone(), written_times: 0, written_at: now });
                entry
            }
        }
    }

    fn fold(&mut self, place: usize, event: Event, now: u64) -> Entry {
        let slot = &mut self.slots[place];
        let before = slot.entry.weight();
        slot.entry.times = slot.entry.times.saturating_add(1);
        slot.entry.last = slot.entry.last.max(now);
        if !event.address.is_empty() {
            slot.entry.address = event.address;
        }
        for (name, many) in event.counts {
            let sum = slot.entry.counts.entry(name).or_default();
            *sum = sum.saturating_add(many);
        }
        // Twice as often, or after a while: an unbroken row of events costs few lines.
        if slot.entry.times >= slot.written_times.saturating_mul(2)
            || now.saturating_sub(slot.written_at) >= REWRITE
        {
            self.due.insert(slot.entry.number);
        }
        self.bytes = self.bytes + slot.entry.weight() - before;
        let entry = slot.entry.clone();
        self.trim();
        entry
    }

    fn add(&mut self, slot: Slot) {
        let Entry { number, code, peer, reason, .. } = &slot.entry;
        self.newest.insert((*code, *peer, reason.clone()), *number);
        self.bytes += slot.entry.weight();
        self.slots.push_back(slot);
        self.trim();
    }

    /// The newest stays, whatever the bounds.
    fn trim(&mut self) {
        while self.slots.len() > 1
            && (self.slots.len() > self.bounds.entries || self.bytes > self.bounds.bytes)
        {
            let Some(Slot { entry, .. }) = self.slots.pop_front() else { return };
            self.bytes -= entry.weight();
            self.due.remove(&entry.number);
            let likeness = (entry.code, entry.peer, entry.reason);
            if self.newest.get(&likeness) == Some(&entry.number) {
                self.newest.remove(&likeness);
            }
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.slots.binary_search_by_key(&number, |slot| slot.entry.number).ok()
    }

    /// Entries whose lines are to be written now.
    pub fn due(&mut self) -> Vec<Entry> {
        let due = std::mem::take(&mut self.due);
        due.into_iter().filter_map(|number| self.written(self.place(number)?)).collect()
    }

    /// Every entry of which not everything was written.
    pub fn rest(&mut self) -> Vec<Entry> {
        let stale = self.slots.iter().filter(|slot| slot.entry.times != slot.written_times);
        self.due = stale.map(|slot| slot.entry.number).collect();
        self.due()
    }

    /// These could not be written after all: they are due again.
    pub fn not_written(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(slot) = self.place(entry.number).and_then(|place| self.slots.get_mut(place)) {
                slot.written_times = 0;
                self.due.extend([entry.number]);
            }
        }
    }

    fn written(&mut self, place: usize) -> Option<Entry> {
        let slot = self.slots.get_mut(place)?;
        (slot.written_times, slot.written_at) = (slot.entry.times, slot.entry.last);
        Some(slot.entry.clone())
    }

    /// Every entry, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Entry> {
        self.slots.iter().map(|slot| slot.entry.clone()).collect()
    }

    /// What passes the filter, newest first, below `before`.
    #[must_use]
    pub fn page(&self, filter: &Filter, before: Option<u64>, limit: usize) -> Page {
        let older = self.slots.iter().rev().map(|slot| &slot.entry);
        let mut fit =
            older.filter(|entry| before.is_none_or(|before| entry.number < before) && filter.admits(entry));
        let entries: Vec<Entry> = fit.by_ref().take(limit).cloned().collect();
        let more = fit.next().is_some();
        let next = entries.last().filter(|_| more).map(|last| last.number);
        Page { entries, next }
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// How much is kept at the most.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Takes other bounds.
    pub fn bound(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.trim();
    }
}

#[cfg(test)]
mod tests;
