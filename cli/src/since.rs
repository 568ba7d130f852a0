//! "Since when", as people type it: a revision, or how long ago. Pure.

use std::str::FromStr;

/// From where on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// From this sequence on.
    Revision(u64),
    /// So many milliseconds ago.
    Ago(u64),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad =
            || format!("`{text}` is neither a revision (212 or 1:212) nor a time ago (90s, 45m, 2h, 3d)");
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| bad());
        if let Some((_epoch, sequence)) = text.split_once(':') {
            return number(sequence).map(Self::Revision);
        }
        let units = [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
        match units.iter().find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, millis))) {
            Some((digits, millis)) => number(digits)?.checked_mul(*millis).map(Self::Ago).ok_or_else(bad),
            None => number(text).map(Self::Revision),
        }
    }
}

/// So many milliseconds ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ago(u64);

impl FromStr for Ago {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(Since::Ago(millis)) => Ok(Self(millis)),
            Ok(Since::Revision(_)) | Err(_) => Err(format!("`{text}` is no time ago (90s, 45m, 2h, 3d)")),
        }
    }
}

impl Ago {
    /// That moment, in Unix milliseconds.
    pub(crate) fn before(self, now_unix_millis: u64) -> u64 {
        now_unix_millis.saturating_sub(self.0)
    }
}

impl Since {
    /// As the sequence or the wall time of a request; one of the two.
    pub(crate) fn parts(self, now_unix_millis: u64) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Revision(sequence) => (Some(sequence), None),
            Self::Ago(millis) => (None, Some(now_unix_millis.saturating_sub(millis))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_and_ages_are_told_apart() {
        assert_eq!("212".parse(), Ok(Since::Revision(212)));
        assert_eq!("1:212".parse(), Ok(Since::Revision(212)));
        assert_eq!("2h".parse(), Ok(Since::Ago(7_200_000)));
        assert_eq!("3d".parse::<Since>().unwrap().parts(300_000_000), (None, Some(40_800_000)));
        assert_eq!("2h".parse::<Ago>().unwrap().before(8_200_000), 1_000_000);
        assert!("212".parse::<Ago>().is_err());
        for wrong in ["", "x", "2w", "-1", "h", "1:", "99999999999999999999d"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }
}
