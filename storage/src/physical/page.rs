//! Pages of a database file: their numbers, hashes, and the digest over all of them. Pure.

use std::fmt;

use twox_hash::XxHash3_128;

/// Size of a page. Every database of ours is made with it; another is refused.
pub const PAGE_BYTES: usize = 4096;

/// The content of a page.
pub type Page = [u8; PAGE_BYTES];

/// A page's number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u32);

impl PageNumber {
    /// The page with the byte at 1 GiB, on which SQLite puts its locks: it has no content, is in no log
    /// and no digest. **Source**: SQLite file format, section 1.5.
    pub const LOCK: Self = Self((1 << 30) / PAGE_BYTES as u32 + 1);

    /// Where the page begins in the database file.
    #[must_use]
    pub fn offset(self) -> u64 {
        (u64::from(self.0) - 1) * PAGE_BYTES as u64
    }

    /// The pages of a database of `count` pages that have content.
    pub fn all(count: u32) -> impl DoubleEndedIterator<Item = Self> {
        (1..=count).map(Self).filter(|page| *page != Self::LOCK)
    }
}

/// Hash of one page at its place: XXH3-128 of the content, seeded with the number. It tells apart what
/// differs by accident; against people there is TLS around it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageHash(u128);

impl PageHash {
    /// Hashes a page.
    #[must_use]
    pub fn of(number: PageNumber, page: &Page) -> Self {
        Self(XxHash3_128::oneshot_with_seed(number.0.into(), page))
    }

    /// Eight bytes of it: enough to tell whether one page is the one that was meant.
    #[must_use]
    pub fn short(self) -> u64 {
        self.0 as u64
    }
}

impl fmt::Debug for PageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The hashes of a set of pages, added without carry: a page is exchanged without a look at the others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PageDigest(u128);

impl PageDigest {
    /// Of no pages.
    pub const EMPTY: Self = Self(0);

    /// Takes a page in, or out if it is in.
    pub fn toggle(&mut self, hash: PageHash) {
        self.0 ^= hash.0;
    }

    /// The digest as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The digest of these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for PageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for PageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_page_has_no_content() {
        assert_eq!(PageNumber::LOCK, PageNumber(262_145));
        assert_eq!(PageNumber::LOCK.offset(), 1 << 30);
        let around: Vec<u32> = PageNumber::all(262_146).rev().take(2).map(|page| page.0).collect();
        assert_eq!(around, [262_146, 262_144]);
    }

    #[test]
    fn a_page_counts_at_its_place_only() {
        let page = [7; PAGE_BYTES];
        let (one, two) = (PageHash::of(PageNumber(1), &page), PageHash::of(PageNumber(2), &page));
        assert_ne!(one, two);
        let mut digest = PageDigest::EMPTY;
        digest.toggle(one);
        digest.toggle(two);
        assert_ne!(digest, PageDigest::EMPTY);
        digest.toggle(one);
        digest.toggle(two);
        assert_eq!(digest, PageDigest::EMPTY);
        assert_eq!(PageDigest::from_bytes(digest.to_bytes()), digest);
    }
}
