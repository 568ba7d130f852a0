//! What lies in a group's folder, by name: `<id>.archive`, its `<id>.manifest`, and `<id>.<turn>.part`, which is
//! being written. Everything else there is not ours and is left alone.
//!
//! An [`ArchiveId`] begins with the time in UTC, so that a folder sorted by name is sorted by age for people.

use std::fmt;

use crate::calendar::{DAY, date};
use crate::store::Name;

/// The end of the year 9999: later times do not fit into an id.
const LAST_SECOND: u64 = 253_402_300_799;

/// An archive: when it was begun, by its device's clock, and luck, so that no two are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveId {
    begun_at: u64,
    luck: u64,
}

impl ArchiveId {
    /// An id; `begun_at` in seconds since 1970, `luck` uniform over all its values.
    #[must_use]
    pub fn new(begun_at: u64, luck: u64) -> Self {
        Self { begun_at: begun_at.min(LAST_SECOND), luck }
    }

    /// When it was begun, in seconds since 1970, by its device's clock.
    #[must_use]
    pub fn begun_at(self) -> u64 {
        self.begun_at
    }

    /// The archive itself.
    #[must_use]
    pub fn data(self) -> Name {
        self.name(".archive")
    }

    /// Its description. An archive without one does not exist.
    #[must_use]
    pub fn manifest(self) -> Name {
        self.name(".manifest")
    }

    /// Either of them while it is written, in the given turn.
    #[must_use]
    pub fn part(self, turn: u32) -> Name {
        self.name(&format!(".{turn:08x}.part"))
    }

    fn name(self, ending: &str) -> Name {
        Name::made(format!("{self}{ending}"))
    }

    /// Reads an id as it is written; `None` for every other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (time, luck) = text.split_once('-')?;
        let luck = u64::from_str_radix(Some(luck).filter(|luck| luck.len() == 16)?, 16).ok()?;
        let (day, clock) = time.strip_suffix('Z')?.split_once('T')?;
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let (day, clock): (u64, u64) = (number(day)?, number(clock)?);
        let seconds = clock / 10_000 * 3_600 + clock / 100 % 100 * 60 + clock % 100;
        let days = days_of(day)?;
        let id = Self::new(days * DAY + seconds, luck);
        // One id has one text: whatever reads otherwise is not ours.
        (id.to_string() == text).then_some(id)
    }
}

/// The day, since 1970, of a date such as 20261130, if there may be one.
fn days_of(day: u64) -> Option<u64> {
    let written = |days: u64| {
        let (year, month, day) = date(days);
        year * 10_000 + month * 100 + day
    };
    let years = (day / 10_000).checked_sub(1970)?;
    // Found by halves: dates rise with days.
    let (mut low, mut high) = (years * 365, years * 366 + 367);
    while low < high {
        let middle = low.midpoint(high);
        if written(middle) < day { low = middle + 1 } else { high = middle }
    }
    (written(low) == day).then_some(low)
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.begun_at / DAY);
        let clock = self.begun_at % DAY;
        let (hour, minute, second) = (clock / 3_600, clock / 60 % 60, clock % 60);
        write!(f, "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z-{:016x}", self.luck)
    }
}

/// What a file of the folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// An archive.
    Data(ArchiveId),
    /// The description of an archive.
    Manifest(ArchiveId),
    /// What is, or was, being written.
    Part(ArchiveId),
}

impl Piece {
    /// Reads a name; `None` is not ours.
    #[must_use]
    pub fn of(name: &Name) -> Option<Self> {
        let (stem, ending) = name.as_str().rsplit_once('.')?;
        let piece = match ending {
            "archive" => Self::Data(ArchiveId::parse(stem)?),
            "manifest" => Self::Manifest(ArchiveId::parse(stem)?),
            "part" => {
                let (stem, turn) = stem.split_once('.')?;
                let id = ArchiveId::parse(stem)?;
                let turn = u32::from_str_radix(turn, 16).ok()?;
                (id.part(turn) == *name).then_some(Self::Part(id))?
            }
            _ => return None,
        };
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_written_as_time_and_luck() {
        let id = ArchiveId::new(20_787 * DAY + 43_200 + 34 * 60 + 56, 0xfeed);
        assert_eq!(id.data().as_str(), "20261130T123456Z-000000000000feed.archive");
        assert_eq!(id.part(7).as_str(), "20261130T123456Z-000000000000feed.00000007.part");
    }

    #[test]
    fn what_is_not_ours_is_seen() {
        let mut foreign = vec!["a", "archive", "notes.archive", "20261130T123456Z-feed.archive"];
        foreign.push("20261131T123456Z-000000000000feed.archive");
        foreign.push("20261130T126056Z-000000000000feed.archive");
        foreign.push("20261130T123456Z-000000000000FEED.manifest");
        foreign.push("20261130T123456Z-000000000000feed.7.part");
        foreign.push("20261130T123456Z-000000000000feed.part");
        foreign.push("20261130T123456Z-000000000000feed.zip");
        for text in foreign {
            assert_eq!(Piece::of(&Name::parse(text).expect("name")), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(begun_at in 0..=LAST_SECOND, luck: u64, turn: u32) {
            let id = ArchiveId::new(begun_at, luck);
            for (name, piece) in [
                (id.data(), Piece::Data(id)),
                (id.manifest(), Piece::Manifest(id)),
                (id.part(turn), Piece::Part(id)),
            ] {
                prop_assert_eq!(Name::parse(name.as_str()), Ok(name.clone()));
                prop_assert_eq!(Piece::of(&name), Some(piece));
            }
        }

        #[test]
        fn no_name_breaks_the_reader(text in "[0-9TZ.a-f-]{1,60}") {
            if let Ok(name) = Name::parse(&text) {
                let _either = Piece::of(&name);
            }
        }
    }
}
