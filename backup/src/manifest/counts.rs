//! How many of what a database holds, by classes of kinds: kinds themselves may be called anything.

use std::collections::BTreeMap;

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::master::archived::Contents;
use mfpsync_storage::model::Kind;

/// What a kind is about: the word before its first dot.
///
/// **Source**: `docs/formats.md`, "Manifest". Numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Kinds this build has no word for.
    Other = 0,
    /// Address lists.
    Address = 1,
    /// Buttons.
    Button = 2,
    /// Language, accessibility, start screen.
    Ui = 3,
    /// Defaults of jobs, and jobs to recall.
    Job = 4,
    /// Shortcuts.
    Shortcut = 5,
    /// Stored passwords, sealed.
    Keychain = 6,
    /// Network settings.
    Network = 7,
    /// Printing at login.
    Print = 8,
    /// The group's own: sharing, marks of erased users.
    Group = 9,
}

impl Class {
    pub(super) const NAMED: [(Self, &'static str); 10] = [
        (Self::Other, "other"),
        (Self::Address, "address"),
        (Self::Button, "button"),
        (Self::Ui, "ui"),
        (Self::Job, "job"),
        (Self::Shortcut, "shortcut"),
        (Self::Keychain, "keychain"),
        (Self::Network, "network"),
        (Self::Print, "print"),
        (Self::Group, "group"),
    ];

    /// The class of a kind.
    #[must_use]
    pub fn of(kind: &Kind) -> Self {
        let word = kind.as_str().split('.').next().unwrap_or_default();
        Self::NAMED.into_iter().find(|(_, name)| *name == word).map_or(Self::Other, |(class, _)| class)
    }

    /// Its word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMED[self as usize].1
    }
}

/// How many of what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Living items; a class without any is not there.
    pub items: BTreeMap<Class, u64>,
    /// Deletions that are remembered.
    pub tombstones: u64,
    /// Accepted changes in the history.
    pub changes: u64,
    /// Devices, released ones included.
    pub members: u64,
}

impl Counts {
    /// Of what was found in a database.
    #[must_use]
    pub fn of(contents: &Contents) -> Self {
        let mut items = BTreeMap::new();
        for (kind, count) in &contents.kinds {
            *items.entry(Class::of(kind)).or_default() += count;
        }
        let Contents { tombstones, changes, members, .. } = *contents;
        Self { items, tombstones, changes, members }
    }

    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.varint(self.items.len() as u64);
        for (class, count) in &self.items {
            to.fixed(&[*class as u8]).varint(*count);
        }
        to.varint(self.tombstones).varint(self.changes).varint(self.members);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut items = BTreeMap::new();
        for _ in 0..from.count()? {
            let (number, count) = (from.byte()?, from.varint()?);
            let class = Class::NAMED.get(usize::from(number)).map(|(class, _)| *class);
            let class = class.ok_or(DecodeError::Invalid("class of kinds"))?;
            let rises = items.last_key_value().is_none_or(|(last, _)| *last < class);
            if !rises || count == 0 {
                return Err(DecodeError::Invalid("counts are out of order"));
            }
            items.insert(class, count);
        }
        let (tombstones, changes, members) = (from.varint()?, from.varint()?, from.varint()?);
        Ok(Self { items, tombstones, changes, members })
    }
}
