//! Pages on their way to a replica: how a part of a transaction is packed. Pure.
//!
//! All pages are compressed together, by a compression that knows the changed ones as the replica has them, and
//! the end of the transaction: what was there before, be it moved, costs a few bytes. **Source** of the
//! choice: ADR 27.

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{Chain, Sequence};
use mfpsync_storage::physical::{PAGE_BYTES, Page, PageDigest, PageHash, PageNumber, Position};
use zstd::bulk::{Compressor, Decompressor};

/// Pages in one part.
pub const PART_PAGES: usize = 256;
/// The compression knows the pages as they were if so many changed at the most. Of more it would find too
/// little again; they travel as the exclusive or with what they were.
const KNOWN_PAGES: usize = 16;
/// More gains little, and costs the writer's thread time.
const LEVEL: i32 = 1;

/// How a page travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// As it is.
    Whole(Box<Page>),
    /// By what changed on the one that the replica has.
    Changed {
        /// The page as the replica has it.
        old: Box<Page>,
        /// The page as it is.
        new: Box<Page>,
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
    /// Hash of its digest: the digest of what comes after it proves the rest.
    pub hash: u32,
}

impl Before {
    /// The name of a position.
    #[must_use]
    pub fn of(position: &Position) -> Self {
        Self { transaction: position.transaction, hash: short(position.digest) }
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

/// A part as it came: what it says of its pages, before the pages themselves are known.
#[derive(Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    /// The end of the transaction, in its last part.
    pub end: Option<End>,
    heads: Vec<Head>,
    /// Hash of all pages that changed, as they were.
    old: u32,
    /// Everything before the pages, which the compression knows too.
    front: &'a [u8],
    content: &'a [u8],
}

/// A page, and whether it comes by what changed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    page: PageNumber,
    changed: bool,
}

/// What a part's pages are.
#[derive(Debug, PartialEq, Eq)]
pub enum Unpacked {
    /// These, rising by number.
    Pages(Vec<(PageNumber, Page)>),
    /// Unknown: one of those that changed, which are these, was not what was meant.
    Wrong(Vec<PageNumber>),
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
        let mut known = Known::default();
        let mut content = Vec::with_capacity(self.pages.len() * PAGE_BYTES);
        let changed = self.pages.iter().filter(|(_, body)| matches!(body, Body::Changed { .. })).count();
        for (page, body) in &self.pages {
            to.varint(u64::from(page.0 - before));
            before = page.0;
            match body {
                Body::Whole(whole) => {
                    to.fixed(&[0]);
                    content.extend_from_slice(&**whole);
                }
                Body::Changed { old, new } => {
                    to.fixed(&[1]);
                    known.add(*page, old);
                    if changed <= KNOWN_PAGES {
                        content.extend_from_slice(&**new);
                    } else {
                        content.extend_from_slice(&exclusive_or(old, new));
                    }
                }
            };
        }
        to.fixed(&known.hash().to_be_bytes());
        let packed = Compressor::with_dictionary(LEVEL, &known.with(to.as_bytes()))?.compress(&content)?;
        to.fixed(&packed);
        Ok(to.finish())
    }
}

impl<'a> Packed<'a> {
    /// Reads what comes before the pages.
    ///
    /// # Errors
    /// Not such a part.
    pub fn parse(bytes: &'a [u8], base: Option<&Position>) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
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
            heads.push(Head { page: PageNumber(before), changed: from.flag()? });
        }
        let old = u32::from_be_bytes(from.array()?);
        let content = from.rest();
        Ok(Self { end, heads, old, front: &bytes[..bytes.len() - content.len()], content })
    }

    /// Unpacks the pages, given those that changed as they were.
    ///
    /// # Errors
    /// What `old` fails with, or the pages do not unpack.
    pub fn unpack<E: From<DecodeError>>(
        &self,
        mut old: impl FnMut(PageNumber) -> Result<Page, E>,
    ) -> Result<Unpacked, E> {
        let (mut known, mut olds) = (Known::default(), Vec::with_capacity(self.heads.len()));
        for head in self.heads.iter().filter(|head| head.changed) {
            let old = old(head.page)?;
            known.add(head.page, &old);
            olds.push(old);
        }
        if known.hash() != self.old {
            let changed = self.heads.iter().filter(|head| head.changed);
            return Ok(Unpacked::Wrong(changed.map(|head| head.page).collect()));
        }
        let large = known.count > KNOWN_PAGES;
        let mut olds = olds.iter().filter(|_| large);
        let unpacked = Decompressor::with_dictionary(&known.with(self.front))
            .and_then(|mut open| open.decompress(self.content, self.heads.len() * PAGE_BYTES))
            .map_err(|_| DecodeError::Invalid("part does not unpack"))?;
        let (contents, rest) = unpacked.as_chunks::<PAGE_BYTES>();
        if contents.len() != self.heads.len() || !rest.is_empty() {
            return Err(DecodeError::Truncated.into());
        }
        let pages = self.heads.iter().zip(contents).map(|(head, content)| {
            let old = if head.changed { olds.next() } else { None };
            (head.page, old.map_or(*content, |old| exclusive_or(old, content)))
        });
        Ok(Unpacked::Pages(pages.collect()))
    }
}

/// The pages that both sides have, for the compression to know.
struct Known {
    count: usize,
    bytes: Vec<u8>,
    digest: PageDigest,
}

impl Default for Known {
    fn default() -> Self {
        Self { count: 0, bytes: Vec::new(), digest: PageDigest::EMPTY }
    }
}

impl Known {
    fn add(&mut self, page: PageNumber, old: &Page) {
        self.digest.toggle(PageHash::of(page, old));
        self.count += 1;
        if self.count <= KNOWN_PAGES {
            self.bytes.extend_from_slice(old);
        }
    }

    fn hash(&self) -> u32 {
        short(self.digest)
    }

    /// What the compression knows: what comes last costs least.
    fn with(mut self, front: &[u8]) -> Vec<u8> {
        if self.count > KNOWN_PAGES {
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(front);
        self.bytes
    }
}

const OUT_OF_ORDER: DecodeError = DecodeError::Invalid("pages out of order");

impl End {
    fn encode(&self, base: Option<&Position>, to: &mut Encoder) {
        match &self.from {
            None => to.fixed(&[0]),
            Some(before) => to.fixed(&[1]).varint(before.transaction).fixed(&before.hash.to_be_bytes()),
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
            Some(Before { transaction: from.varint()?, hash: u32::from_be_bytes(from.array()?) })
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

fn exclusive_or(one: &Page, two: &Page) -> Page {
    let mut difference = *one;
    difference.iter_mut().zip(two).for_each(|(one, two)| *one ^= two);
    difference
}

fn short(digest: PageDigest) -> u32 {
    let [.., a, b, c, d] = digest.to_bytes();
    u32::from_be_bytes([a, b, c, d])
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
            let new = Box::new([7; PAGE_BYTES]);
            let body = if number.is_multiple_of(2) {
                Body::Whole(new)
            } else {
                Body::Changed { old: Box::new(before(PageNumber(*number))), new }
            };
            (PageNumber(*number), body)
        };
        let end = End { from: Some(Before::of(&position(6))), to: position(7) };
        Part { pages: numbers.iter().map(page).collect(), end: Some(end) }
    }

    /// A page as the replica has it.
    fn before(page: PageNumber) -> Page {
        [page.0 as u8; PAGE_BYTES]
    }

    fn unpacked(packed: &[u8], base: Option<&Position>) -> (Option<End>, Vec<(PageNumber, Page)>) {
        let packed = Packed::parse(packed, base).unwrap();
        let pages = packed.unpack(|page| Ok::<_, DecodeError>(before(page))).unwrap();
        let Unpacked::Pages(pages) = pages else { panic!("{pages:?}") };
        (packed.end, pages)
    }

    fn is_part(part: &Part, (end, pages): (Option<End>, Vec<(PageNumber, Page)>)) {
        assert_eq!(end, part.end);
        let new = part.pages.iter().map(|(page, body)| match body {
            Body::Whole(new) | Body::Changed { new, .. } => (*page, **new),
        });
        assert!(pages.into_iter().eq(new));
    }

    #[test]
    fn a_part_comes_back_as_it_was_packed() {
        let many: Vec<u32> = (1..=60).collect();
        for numbers in [&[1, 2, 3, 262_146][..], &[2, 4], &[], &many] {
            for base in [None, Some(position(6))] {
                let part = part(numbers);
                is_part(&part, unpacked(&part.pack(base.as_ref()).unwrap(), base.as_ref()));
            }
        }
        assert!(Packed::parse(&part(&[1]).pack(Some(&position(6))).unwrap(), None).is_err());
    }

    /// How well it is packed may change, what it unpacks to may not.
    #[test]
    fn a_part_is_frozen() {
        let part = part(&[1, 2, 262_146]);
        for (name, base) in [("part-v1.hex", None), ("part-onto-v1.hex", Some(position(6)))] {
            if !golden(name).exists() {
                frozen(name, &hex(&part.pack(base.as_ref()).unwrap()));
            }
            let stored = unhex(&std::fs::read_to_string(golden(name)).unwrap());
            is_part(&part, unpacked(&stored, base.as_ref()));
        }
    }

    #[test]
    fn a_change_goes_onto_no_other_page() {
        let packed = part(&[2, 5, 7]).pack(None).unwrap();
        let other = |page: PageNumber| Ok::<_, DecodeError>(before(PageNumber(page.0.min(6))));
        let wrong = Packed::parse(&packed, None).unwrap().unpack(other).unwrap();
        assert_eq!(wrong, Unpacked::Wrong(vec![PageNumber(5), PageNumber(7)]));
    }

    #[test]
    fn a_small_change_is_small() {
        let (old, mut new) = ([0x5a; PAGE_BYTES], [0x5a; PAGE_BYTES]);
        new[1000..1040].copy_from_slice(&std::array::from_fn::<u8, 40, _>(|at| (at * 37) as u8));
        let changed = || Body::Changed { old: Box::new(old), new: Box::new(new) };
        let pages = (1..=5).map(|page| (PageNumber(page), changed()));
        let packed = Part { pages: pages.collect(), end: None }.pack(None).unwrap();
        assert!(packed.len() < 150, "{} bytes", packed.len());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(packed) = Packed::parse(&bytes, None) {
                let _ = packed.unpack(|page| Ok::<_, DecodeError>(before(page)));
            }
        }

        #[test]
        fn whatever_is_cut_or_changed_is_refused_or_read(at in 0usize..400, bit in 0u8..8, cut in any::<bool>()) {
            let mut packed = part(&[1, 2, 3]).pack(None).unwrap();
            let at = at % packed.len();
            if cut { packed.truncate(at) } else { packed[at] ^= 1 << bit }
            if let Ok(packed) = Packed::parse(&packed, None) {
                let _ = packed.unpack(|page| Ok::<_, DecodeError>(before(page)));
            }
        }
    }
}
