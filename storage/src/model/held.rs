//! What a device holds of a reign that ended early: the figures behind "nothing was lost".

use super::{Epoch, Sequence};
use crate::codec::{DecodeError, Decoder, Encoder};

/// Changes a device has from beyond the end of a reign that its successor knows, and now offers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The reign it followed before.
    pub ended: Epoch,
    /// The last change of that reign that the device has heard of.
    pub highest: Sequence,
    /// First and last sequence of runs it holds, rising, with a gap between each two.
    pub runs: Vec<(Sequence, Sequence)>,
}

impl Held {
    const MAGIC: [u8; 4] = *b"MFPH";
    const VERSION: u8 = 1;
    /// Runs that are told; a device that holds more tells the first of them.
    pub const MAX_RUNS: usize = 1 << 16;

    /// What holds these sequences, in any order.
    #[must_use]
    pub fn of(ended: Epoch, highest: Sequence, mut sequences: Vec<Sequence>) -> Self {
        sequences.sort_unstable();
        let mut runs: Vec<(Sequence, Sequence)> = Vec::new();
        for sequence in sequences {
            match runs.last_mut() {
                Some((_, last)) if sequence.0 <= last.0 + 1 => *last = sequence,
                Some(_) | None => runs.push((sequence, sequence)),
            }
        }
        runs.truncate(Self::MAX_RUNS);
        Self { ended, highest, runs }
    }

    /// The canonical record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        self.ended.encode(&mut to);
        to.varint(self.highest.0).varint(self.runs.len() as u64);
        let mut before = 0;
        for (first, last) in &self.runs {
            to.varint(first.0 - before).varint(last.0 - first.0);
            before = last.0;
        }
        to.finish()
    }

    /// Parses the canonical record.
    ///
    /// # Errors
    /// Not such a record, a newer one, or runs that do not rise.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(bytes, Self::MAGIC, Self::VERSION, "held changes")?;
        let ended = Epoch::decode(&mut from)?;
        let highest = Sequence(from.varint()?);
        if highest.0 > i64::MAX as u64 {
            return Err(DecodeError::Invalid("last change"));
        }
        let count = from.count()?;
        if count > Self::MAX_RUNS {
            return Err(DecodeError::Invalid("too many runs"));
        }
        let (mut runs, mut before) = (Vec::with_capacity(count), 0_u64);
        for at in 0..count {
            let (gap, length) = (from.varint()?, from.varint()?);
            let first = before.checked_add(gap).filter(|_| at == 0 || gap > 1);
            let last = first.and_then(|first| first.checked_add(length));
            let (Some(first), Some(last)) = (first, last.filter(|last| *last <= i64::MAX as u64)) else {
                return Err(DecodeError::Invalid("runs do not rise"));
            };
            runs.push((Sequence(first), Sequence(last)));
            before = last;
        }
        from.finish()?;
        Ok(Self { ended, highest, runs })
    }

    /// What of it lies behind `fork`: nothing else was asked for.
    #[must_use]
    pub fn beyond(mut self, fork: Sequence) -> Self {
        self.runs.retain_mut(|(first, last)| {
            *first = (*first).max(Sequence(fork.0 + 1));
            first <= last
        });
        self
    }

    /// The runs behind `after`, up to `through`, that no device holds.
    #[must_use]
    pub fn missing(after: Sequence, through: Sequence, all: &[Self]) -> Vec<(Sequence, Sequence)> {
        let mut runs: Vec<_> = all.iter().flat_map(|held| held.runs.iter().copied()).collect();
        runs.sort_unstable();
        let (mut missing, mut next) = (Vec::new(), after.0 + 1);
        for (first, last) in runs {
            if first.0 > through.0 {
                break;
            }
            if first.0 > next {
                missing.push((Sequence(next), Sequence(first.0 - 1)));
            }
            next = next.max(last.0 + 1);
        }
        if next <= through.0 {
            missing.push((Sequence(next), through));
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ENDED: Epoch = Epoch { number: 2, nonce: [2; 16] };

    fn sequences() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(1..60_u64, 0..40)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(held in sequences(), highest in any::<u32>()) {
            let held = Held::of(ENDED, Sequence(highest.into()), held.into_iter().map(Sequence).collect());
            prop_assert_eq!(Held::decode(&held.encode()), Ok(held));
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let record = [b"MFPH\x01", &bytes[..]].concat();
            if let Ok(held) = Held::decode(&record) {
                prop_assert_eq!(Held::decode(&held.encode()), Ok(held));
            }
        }

        #[test]
        fn missing_is_what_nobody_holds(one in sequences(), other in sequences(), after in 0..30_u64, more in 0..40_u64) {
            let through = after + more;
            let held = |of: &[u64]| Held::of(ENDED, Sequence(0), of.iter().copied().map(Sequence).collect());
            let missing = Held::missing(Sequence(after), Sequence(through), &[held(&one), held(&other)]);
            let missing: BTreeSet<u64> = missing.iter().flat_map(|(first, last)| first.0..=last.0).collect();
            let known: BTreeSet<u64> = one.into_iter().chain(other).collect();
            prop_assert_eq!(missing, (after + 1..=through).filter(|sequence| !known.contains(sequence)).collect());
        }
    }
}
