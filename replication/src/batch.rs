//! Pages on their way to a replica: how a part of a transaction is packed. Pure.
//!
//! A page that the replica has travels as the difference to what it has, which is mostly zeros, and all
//! is compressed together. The position at a transaction's end is packed as well: its chain stands in the
//! pages anyway. **Source** of the choice: ADR 24.

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{Chain, Sequence};
use mfpsync_storage::physical::{PAGE_BYTES, Page, PageDigest, PageHash, PageNumber, Position};

/// Pages in one part.
pub const PART_PAGES: usize = 256;
/// The most a part unpacks to: what comes with a page is far below 64 bytes.
const UNPACKED_BYTES: usize = PART_PAGES * (PAGE_BYTES + 64) + 1024;
/// More gains little on differences, and costs the writer's thread time.
const LEVEL: i32 = 1;

/// How a page travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As it is.
    Whole(Box<Page>),
    /// The difference to the page with this hash, which the replica has.
    Difference {
        /// Of the page as the replica has it.
        old: u32,
        /// Bit by bit.
        difference: Box<Page>,
    },
}

/// The end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Where the copy must stand before it; none if the pages say all that is needed.
    pub from: Option<Before>,
    /// Where the copy stands afterwards.
    pub to: Position,
}

/// Names a position that both sides know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// Its transaction.
    pub transaction: u64,
    /// Its digest.
    pub digest: PageDigest,
}

impl Before {
    /// The name of a position.
    #[must_use]
    pub fn of(position: &Position) -> Self {
        Self { transaction: position.transaction, digest: position.digest }
    }
}

/// A part of a transaction; its last one has the end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Rising by number.
    pub pages: Vec<(PageNumber, Body)>,
    /// Where the transaction leads, in its last part.
    pub end: Option<End>,
}

impl Body {
    /// The difference between two states of a page.
    #[must_use]
    pub fn difference(page: PageNumber, old: &Page, new: &Page) -> Self {
        Self::Difference { old: short(page, old), difference: Box::new(exclusive_or(old, new)) }
    }

    /// The page, the replica having `old`; none if that is not what was meant.
    #[must_use]
    pub fn onto(&self, page: PageNumber, old: &Page) -> Option<Page> {
        match self {
            Self::Whole(content) => Some(**content),
            Self::Difference { old: meant, difference } => {
                (short(page, old) == *meant).then(|| exclusive_or(old, difference))
            }
        }
    }
}

impl Part {
    /// Packs the part. What both sides know of `base` is left out.
    ///
    /// # Errors
    /// None in practice: memory has no device to fail.
    pub fn pack(&self, base: Option<&Position>) -> std::io::Result<Vec<u8>> {
        let mut to = Encoder::new();
        match &self.end {
            None => to.fixed(&[0]),
            Some(end) => {
                to.fixed(&[1]);
                end.encode(base, &mut to);
                &mut to
            }
        };
        to.varint(self.pages.len() as u64);
        let mut before = 0;
        for (page, body) in &self.pages {
            to.varint(u64::from(page.0 - before));
            before = page.0;
            match body {
                Body::Whole(_) => to.fixed(&[0]),
                Body::Difference { old, .. } => to.fixed(&[1]).fixed(&old.to_be_bytes()),
            };
        }
        for (_, body) in &self.pages {
            match body {
                Body::Whole(content) | Body::Difference { difference: content, .. } => to.fixed(&**content),
            };
        }
        zstd::bulk::compress(to.as_bytes(), LEVEL)
    }

    /// Unpacks a part.
    ///
    /// # Errors
    /// Not such a part, or one that is larger than it may be.
    pub fn unpack(bytes: &[u8], base: Option<&Position>) -> Result<Self, DecodeError> {
        let unpacked = zstd::bulk::decompress(bytes, UNPACKED_BYTES)
            .map_err(|_| DecodeError::Invalid("part does not unpack"))?;
        let mut from = Decoder::new(&unpacked);
        let end = if from.flag()? { Some(End::decode(base, &mut from)?) } else { None };
        let count = from.varint()?;
        if count > PART_PAGES as u64 {
            return Err(DecodeError::Invalid("too many pages in a part"));
        }
        let mut heads = Vec::with_capacity(count as usize);
        let mut before = 0u32;
        for _ in 0..count {
            let page = u32::try_from(from.varint()?).ok().filter(|step| *step > 0);
            before = page.and_then(|step| before.checked_add(step)).ok_or(OUT_OF_ORDER)?;
            heads.push((
                PageNumber(before),
                if from.flag()? { Some(u32::from_be_bytes(from.array()?)) } else { None },
            ));
        }
        let mut pages = Vec::with_capacity(heads.len());
        for (page, old) in heads {
            let content = Box::new(from.array::<PAGE_BYTES>()?);
            let body = match old {
                None => Body::Whole(content),
                Some(old) => Body::Difference { old, difference: content },
            };
            pages.push((page, body));
        }
        from.finish()?;
        Ok(Self { pages, end })
    }
}

const OUT_OF_ORDER: DecodeError = DecodeError::Invalid("pages out of order");

impl End {
    fn encode(&self, base: Option<&Position>, to: &mut Encoder) {
        match &self.from {
            None => to.fixed(&[0]),
            Some(before) => to.fixed(&[1]).varint(before.transaction).fixed(&before.digest.to_bytes()),
        };
        let same = |base: &&Position| {
            (base.group, base.log, base.epoch) == (self.to.group, self.to.log, self.to.epoch)
        };
        match base.filter(same) {
            None => to.fixed(&[0]).bytes(&self.to.encode()),
            Some(_) => {
                to.fixed(&[1]).varint(self.to.transaction).varint(self.to.pages.into());
                to.fixed(&self.to.digest.to_bytes()).varint(self.to.sequence.0).fixed(&self.to.chain.0)
            }
        };
    }

    fn decode(base: Option<&Position>, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let before = if from.flag()? {
            Some(Before { transaction: from.varint()?, digest: PageDigest::from_bytes(from.array()?) })
        } else {
            None
        };
        let to = match (from.flag()?, base) {
            (false, _) => Position::decode(from.bytes()?)?,
            (true, None) => return Err(DecodeError::Invalid("position without a base")),
            (true, Some(base)) => Position {
                transaction: from.varint()?,
                pages: u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("number of pages"))?,
                digest: PageDigest::from_bytes(from.array()?),
                sequence: Sequence(from.varint()?),
                chain: Chain(from.array()?),
                ..*base
            },
        };
        Ok(Self { from: before, to })
    }
}

fn short(page: PageNumber, content: &Page) -> u32 {
    PageHash::of(page, content).short() as u32
}

fn exclusive_or(one: &Page, two: &Page) -> Page {
    let mut difference = *one;
    difference.iter_mut().zip(two).for_each(|(one, two)| *one ^= two);
    difference
}

#[cfg(test)]
mod tests {
    use mfpsync_storage::model::{Epoch, GroupId};
    use mfpsync_storage::physical::LogId;
    use proptest::prelude::*;

    use super::*;
    use crate::frozen::{frozen, golden, hex, unhex};

    fn position(transaction: u64) -> Position {
        Position {
            group: GroupId([1; 16]),
            log: LogId([2; 16]),
            transaction,
            pages: 9,
            digest: PageDigest::from_bytes([transaction as u8; 16]),
            epoch: Epoch { number: 3, nonce: [4; 16] },
            sequence: Sequence(transaction),
            chain: Chain([5; 32]),
        }
    }

    fn part(numbers: &[u32]) -> Part {
        let page = |number: &u32| {
            let (old, new) = ([*number as u8; PAGE_BYTES], [7; PAGE_BYTES]);
            let body = if number.is_multiple_of(2) {
                Body::Whole(Box::new(new))
            } else {
                Body::difference(PageNumber(*number), &old, &new)
            };
            (PageNumber(*number), body)
        };
        let end = End { from: Some(Before::of(&position(6))), to: position(7) };
        Part { pages: numbers.iter().map(page).collect(), end: Some(end) }
    }

    #[test]
    fn a_part_comes_back_as_it_was_packed() {
        for base in [None, Some(position(6))] {
            let part = part(&[1, 2, 3, 262_146]);
            assert_eq!(Part::unpack(&part.pack(base.as_ref()).unwrap(), base.as_ref()).unwrap(), part);
        }
        assert!(Part::unpack(&part(&[1]).pack(Some(&position(6))).unwrap(), None).is_err());
    }

    /// How well it is packed may change, what it unpacks to may not.
    #[test]
    fn a_part_is_frozen() {
        let part = part(&[1, 2, 262_146]);
        for (name, base) in [("part-v1.hex", None), ("part-onto-v1.hex", Some(position(6)))] {
            let packed = part.pack(base.as_ref()).unwrap();
            let inner = zstd::bulk::decompress(&packed, UNPACKED_BYTES).unwrap();
            frozen(name, &hex(&inner));
            let stored = unhex(&std::fs::read_to_string(golden(name)).unwrap());
            let packed = zstd::bulk::compress(&stored, LEVEL).unwrap();
            assert_eq!(Part::unpack(&packed, base.as_ref()).unwrap(), part, "{name}");
        }
    }

    #[test]
    fn a_difference_goes_onto_no_other_page() {
        let (old, new, other) = ([1; PAGE_BYTES], [2; PAGE_BYTES], [3; PAGE_BYTES]);
        let body = Body::difference(PageNumber(5), &old, &new);
        assert_eq!(body.onto(PageNumber(5), &old), Some(new));
        assert_eq!(body.onto(PageNumber(5), &other), None);
        assert_eq!(body.onto(PageNumber(6), &old), None);
    }

    #[test]
    fn a_small_change_is_small() {
        let (old, mut new) = ([0x5a; PAGE_BYTES], [0x5a; PAGE_BYTES]);
        new[1000..1040].copy_from_slice(&std::array::from_fn::<u8, 40, _>(|at| (at * 37) as u8));
        let pages = (1..=5).map(|page| (PageNumber(page), Body::difference(PageNumber(page), &old, &new)));
        let packed = Part { pages: pages.collect(), end: None }.pack(None).unwrap();
        assert!(packed.len() < 150, "{} bytes", packed.len());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Part::unpack(&bytes, None);
            let packed = zstd::bulk::compress(&bytes, 1).unwrap();
            if let Ok(part) = Part::unpack(&packed, None) {
                prop_assert_eq!(Part::unpack(&part.pack(None).unwrap(), None).unwrap(), part);
            }
        }
    }
}
