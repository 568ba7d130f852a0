//! What becomes of one item when the sharing of its kind is switched. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mfpsync_storage::master::ItemWrite;
use mfpsync_storage::model::{DeviceId, FieldSequences, Fields, ItemKey, Sequence};
use sha2::{Digest, Sha256};

use super::{Choice, Start, Tally, Target};

/// One form of an item, as the master has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its fields.
    pub fields: Fields,
    /// When each field last changed.
    pub sequences: FieldSequences,
    /// A tombstone.
    pub deleted: bool,
    /// When it last changed.
    pub sequence: Sequence,
    /// Of a tombstone: what a switch took away here, where that is known and asked for.
    pub before: Option<Fields>,
}

/// An item with all its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forms {
    /// Its key as all devices share it.
    pub key: ItemKey,
    /// What all devices share.
    pub shared: Option<Held>,
    /// What devices have for themselves, by their ids.
    pub own: BTreeMap<String, Held>,
}

/// One write of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Whose form: a device's id, or empty for the shared one.
    pub device: String,
    /// What it becomes; none: it goes.
    pub becomes: Option<(Fields, FieldSequences)>,
}

/// What becomes of an item, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// There is none, and will be none.
    Nothing,
    /// So many devices get their own.
    Split {
        /// All of them.
        devices: u64,
    },
    /// One value becomes the group's.
    Joined {
        /// Whose; none when it is the one the group had before.
        of: Option<String>,
        /// So many other devices have another value, which is kept in the history.
        others: u64,
    },
    /// The group will have none.
    LeftOut {
        /// So many devices had one.
        devices: u64,
    },
}

/// What a switch makes of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Writes, in the order in which they have to come: a device must not lose sight of the item in
    /// between, so what shows afterwards is there before what showed goes.
    pub moves: Vec<Move>,
    /// For people.
    pub fate: Fate,
    brought_back: u64,
}

impl Forms {
    /// An item of which no form is known yet; the key is the shared one.
    #[must_use]
    pub fn new(key: ItemKey) -> Self {
        Self { key, shared: None, own: BTreeMap::new() }
    }

    /// Takes one form.
    pub fn hold(&mut self, key: &ItemKey, held: Held) {
        if key.device.is_empty() {
            self.shared = Some(held);
        } else {
            self.own.insert(key.device.clone(), held);
        }
    }

    fn form(&self, device: &str) -> Option<&Held> {
        if device.is_empty() { self.shared.as_ref() } else { self.own.get(device) }
    }

    /// Forms of devices that live.
    fn living(&self) -> impl Iterator<Item = (&String, &Held)> {
        self.own.iter().filter(|(_, held)| !held.deleted)
    }

    /// Everything a decision depends on: where an item changed, its sequence did.
    pub(super) fn digest_into(&self, hasher: &mut Sha256) {
        let mut part = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        part(self.key.scope.as_str().as_bytes());
        part(self.key.id.as_bytes());
        let shared = self.shared.iter().map(|held| ("", held));
        for (device, held) in shared.chain(self.own.iter().map(|(device, held)| (device.as_str(), held))) {
            part(device.as_bytes());
            part(&held.sequence.0.to_be_bytes());
            part(&[u8::from(held.deleted), u8::from(held.before.is_some())]);
        }
    }
}

/// Decides what a switch makes of one item; `devices` are those that belong to the group now.
#[must_use]
pub fn decide(to: Target, forms: &Forms, devices: &BTreeSet<DeviceId>) -> Decided {
    match to {
        Target::DeviceSpecific(start) => split(start, forms, devices),
        Target::Shared(choice) => join(choice, forms),
    }
}

/// Each device gets its own. A form that a device has already stays.
fn split(start: Start, forms: &Forms, devices: &BTreeSet<DeviceId>) -> Decided {
    let seen = forms.shared.as_ref().filter(|held| !held.deleted);
    // Deleted while it was shared: it does not come back for anybody.
    let is_gone = forms.shared.as_ref().is_some_and(|held| held.deleted && held.before.is_none());
    let all: BTreeSet<String> =
        devices.iter().map(DeviceId::to_string).chain(forms.own.keys().cloned()).collect();
    let (mut moves, mut brought_back) = (Vec::new(), 0);
    for device in all {
        let own = forms.own.get(&device);
        if own.is_some_and(|held| !held.deleted) {
            continue;
        }
        let before = own.filter(|_| start == Start::Before && !is_gone).and_then(had);
        let belongs = DeviceId::from_hex(&device).is_some_and(|id| devices.contains(&id));
        brought_back += u64::from(before.is_some());
        let shows = seen.filter(|_| belongs).map(|held| (held.fields.clone(), held.sequences.clone()));
        if let Some(value) = before.or(shows) {
            moves.push(Move { device, becomes: Some(value) });
        }
    }
    let fate = match moves.len() as u64 {
        0 if seen.is_none() => Fate::Nothing,
        devices => Fate::Split { devices },
    };
    if seen.is_some() {
        moves.push(Move { device: String::new(), becomes: None });
    }
    Decided { moves, fate, brought_back }
}

/// One value becomes the group's.
fn join(choice: Choice, forms: &Forms) -> Decided {
    let newest = || {
        let of_all = forms.living().max_by_key(|(device, held)| {
            (held.sequences.latest(), held.sequence, std::cmp::Reverse(*device))
        });
        of_all.map(|(device, held)| (Some(device.clone()), held.fields.clone(), held.sequences.clone()))
    };
    let anybody_has_it = forms.living().next().is_some();
    let chosen = match choice {
        Choice::Of(device) => {
            let device = device.to_string();
            let held = forms.own.get(&device).filter(|held| !held.deleted);
            held.map(|held| (Some(device), held.fields.clone(), held.sequences.clone()))
        }
        Choice::Newest => newest(),
        // What all devices deleted since stays deleted.
        Choice::Before => forms
            .shared
            .as_ref()
            .filter(|_| anybody_has_it)
            .and_then(had)
            .map(|(fields, sequences)| (None, fields, sequences))
            .or_else(newest),
    };
    let living: Vec<String> = forms.living().map(|(device, _)| device.clone()).collect();
    let fate = match &chosen {
        None if living.is_empty() => Fate::Nothing,
        None => Fate::LeftOut { devices: living.len() as u64 },
        Some((of, fields, _)) => {
            let others = forms.living().filter(|(_, held)| held.fields != *fields).count();
            Fate::Joined { of: of.clone(), others: others as u64 }
        }
    };
    let shared = chosen
        .map(|(_, fields, sequences)| Move { device: String::new(), becomes: Some((fields, sequences)) });
    let gone = living.into_iter().map(|device| Move { device, becomes: None });
    Decided { moves: shared.into_iter().chain(gone).collect(), fate, brought_back: 0 }
}

/// What a switch took away, with the sequences the fields had: those of a tombstone that a switch made
/// are untouched.
fn had(held: &Held) -> Option<(Fields, FieldSequences)> {
    held.before.clone().map(|fields| (fields, held.sequences.clone()))
}

impl Decided {
    /// Adds what is done to `tally`; `kept` when the history keeps what goes.
    pub(super) fn count(&self, forms: &Forms, kept: bool, tally: &mut Tally) {
        if self.fate == Fate::Nothing {
            return;
        }
        tally.items += 1;
        tally.left_out += u64::from(matches!(self.fate, Fate::LeftOut { .. }));
        tally.brought_back += self.brought_back;
        let staying: Vec<&Fields> = self.moves.iter().filter_map(Move::fields).collect();
        for one in &self.moves {
            match (&one.becomes, one.device.is_empty()) {
                (Some(_), true) => tally.chosen += 1,
                (Some(_), false) => tally.copies += 1,
                (None, _) => {
                    let Some(held) = forms.form(&one.device) else { continue };
                    // What is there again elsewhere is not lost sight of.
                    let again = staying.iter().any(|fields| **fields == held.fields);
                    tally.identical += u64::from(again && !one.device.is_empty());
                    tally.kept += u64::from(!again && kept);
                    tally.not_kept += u64::from(!again && !kept);
                }
            }
        }
    }
}

impl Move {
    fn fields(&self) -> Option<&Fields> {
        self.becomes.as_ref().map(|(fields, _)| fields)
    }

    /// The write that carries it out.
    pub(super) fn into_write(self, forms: &Forms, keep_prior: bool) -> ItemWrite {
        let key = ItemKey { device: self.device, ..forms.key.clone() };
        let standing = forms.form(&key.device);
        let names = |fields: &Fields| fields.names().map(str::to_owned).collect::<Vec<_>>();
        let deleted = self.becomes.is_none();
        // A tombstone keeps when its fields changed: a switch is nobody's edit of them.
        let (fields, sequences, touched) = match self.becomes {
            Some((fields, sequences)) => (fields.clone(), sequences, names(&fields)),
            None => {
                let sequences = standing.map(|held| held.sequences.clone()).unwrap_or_default();
                (Fields::new(), sequences, standing.map(|held| names(&held.fields)).unwrap_or_default())
            }
        };
        ItemWrite {
            key,
            deleted,
            fields,
            touched,
            sequences: Some(sequences),
            lost: Fields::new(),
            keep_prior,
        }
    }
}
