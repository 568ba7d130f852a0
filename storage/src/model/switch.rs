//! The order to switch the sharing of a kind, and what came of it so far.
//!
//! What a switch makes of an item is decided in `mfpsync_replication::sharing`; how far one has come is
//! kept in `master/switching.rs`.

use super::{DeviceId, ItemKey, Scope, Sharing};
use crate::codec::{DecodeError, Decoder, Encoder};

/// How the items of a kind shall be, and with which values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Each device has its own.
    DeviceSpecific(Start),
    /// All devices have one.
    Shared(Choice),
}

/// What each device begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// What it shows now.
    Seen,
    /// What it had for itself before the kind became shared; what is new since, as it shows now.
    Before,
}

/// Which value becomes the group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The one of this device. What it does not have the group will not have.
    Of(DeviceId),
    /// The one that was accepted last.
    Newest,
    /// The group's own, as it was before the kind became device-specific; of what is new since, the
    /// newest.
    Before,
}

impl Target {
    /// The setting alone.
    #[must_use]
    pub const fn sharing(self) -> Sharing {
        match self {
            Self::DeviceSpecific(_) => Sharing::DeviceSpecific,
            Self::Shared(_) => Sharing::Shared,
        }
    }

    /// Its number, and the device it names.
    ///
    /// **Source**: `docs/formats.md`, "Sharing". Numbers are frozen.
    #[must_use]
    pub(crate) const fn number(self) -> (i64, Option<DeviceId>) {
        match self {
            Self::DeviceSpecific(Start::Seen) => (1, None),
            Self::DeviceSpecific(Start::Before) => (2, None),
            Self::Shared(Choice::Of(device)) => (3, Some(device)),
            Self::Shared(Choice::Newest) => (4, None),
            Self::Shared(Choice::Before) => (5, None),
        }
    }

    /// The target of a number.
    ///
    /// # Errors
    /// A number that has no meaning, or one without the device it has to name.
    pub(crate) const fn of_number(number: i64, device: Option<DeviceId>) -> Result<Self, DecodeError> {
        Ok(match (number, device) {
            (1, None) => Self::DeviceSpecific(Start::Seen),
            (2, None) => Self::DeviceSpecific(Start::Before),
            (3, Some(device)) => Self::Shared(Choice::Of(device)),
            (4, None) => Self::Shared(Choice::Newest),
            (5, None) => Self::Shared(Choice::Before),
            _ => return Err(DecodeError::Invalid("target of a switch")),
        })
    }
}

/// A place in the order of a kind's items, which is that of their bytes: scope, then id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose.
    pub scope: Scope,
    /// Which.
    pub id: String,
}

impl Place {
    /// Where an item stands among those of its kind, whichever device's form is meant.
    #[must_use]
    pub fn of(key: &ItemKey) -> Self {
        Self { scope: key.scope.clone(), id: key.id.clone() }
    }
}

/// What a switch does, or would do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Items of the kind that are concerned, each counted once however many devices have it.
    pub items: u64,
    /// Values that devices get for their own.
    pub copies: u64,
    /// Of those: values that devices had for their own before and get back.
    pub brought_back: u64,
    /// Values that become the group's.
    pub chosen: u64,
    /// Values of devices that are the same as the group's.
    pub identical: u64,
    /// Values that no longer show and are kept in the history.
    pub kept: u64,
    /// Values that no longer show and are kept nowhere: secrets, or all when there is no history.
    pub not_kept: u64,
    /// Of the items: those of which the group has none afterwards.
    pub left_out: u64,
}

impl Tally {
    /// Adds what else is done.
    pub fn add(&mut self, other: &Self) {
        self.items += other.items;
        self.copies += other.copies;
        self.brought_back += other.brought_back;
        self.chosen += other.chosen;
        self.identical += other.identical;
        self.kept += other.kept;
        self.not_kept += other.not_kept;
        self.left_out += other.left_out;
    }

    /// **Source**: `docs/formats.md`, "Sharing".
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { items, copies, brought_back, chosen, identical, kept, not_kept, left_out } = *self;
        let mut to = Encoder::new();
        for number in [items, copies, brought_back, chosen, identical, kept, not_kept, left_out] {
            to.varint(number);
        }
        to.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let tally = Self {
            items: from.varint()?,
            copies: from.varint()?,
            brought_back: from.varint()?,
            chosen: from.varint()?,
            identical: from.varint()?,
            kept: from.varint()?,
            not_kept: from.varint()?,
            left_out: from.varint()?,
        };
        from.finish()?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_what_its_number_says() {
        let device = DeviceId([7; 16]);
        for target in [
            Target::DeviceSpecific(Start::Seen),
            Target::DeviceSpecific(Start::Before),
            Target::Shared(Choice::Of(device)),
            Target::Shared(Choice::Newest),
            Target::Shared(Choice::Before),
        ] {
            let (number, device) = target.number();
            assert_eq!(Target::of_number(number, device), Ok(target));
        }
        for (number, device) in [(0, None), (6, None), (3, None), (1, Some(device))] {
            assert!(Target::of_number(number, device).is_err(), "{number}");
        }
    }

    #[test]
    fn a_tally_comes_back_as_it_was() {
        let tally = Tally {
            items: 1,
            copies: 200,
            brought_back: 3,
            chosen: 4,
            identical: 5,
            kept: 6,
            not_kept: 7,
            left_out: 1 << 40,
        };
        assert_eq!(Tally::decode(&tally.encode()), Ok(tally));
        assert!(Tally::decode(&tally.encode()[1..]).is_err());
    }
}
