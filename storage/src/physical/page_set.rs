//! Sets of pages: what a replica lacks. Pure.

use super::page::PageNumber;
use crate::codec::{DecodeError, Decoder, Encoder};

/// A set of page numbers, a bit for each page: 64 KiB for a database of 2 GiB, however much changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageSet {
    words: Vec<u64>,
    len: u32,
}

impl PageSet {
    /// All pages of a database of `pages` pages.
    #[must_use]
    pub fn all(pages: u32) -> Self {
        let mut set = Self::default();
        PageNumber::all(pages).for_each(|page| set.insert(page));
        set
    }

    /// How many pages it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a page.
    pub fn insert(&mut self, page: PageNumber) {
        let (word, bit) = place(page);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.len += 1;
        }
    }

    /// Whether it has the page.
    #[must_use]
    pub fn contains(&self, page: PageNumber) -> bool {
        let (word, bit) = place(page);
        self.words.get(word).is_some_and(|found| found & bit != 0)
    }

    /// Takes out its first page from `from` on.
    pub fn take_from(&mut self, from: PageNumber) -> Option<PageNumber> {
        let page = self.next_from(from)?;
        let (word, bit) = place(page);
        self.words[word] &= !bit;
        self.len -= 1;
        Some(page)
    }

    /// Adds all pages of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        self.words.iter_mut().zip(&other.words).for_each(|(one, two)| *one |= two);
        self.len = self.words.iter().map(|word| word.count_ones()).sum();
    }

    /// Its pages in rising order.
    pub fn iter(&self) -> impl Iterator<Item = PageNumber> + '_ {
        let mut from = PageNumber(1);
        std::iter::from_fn(move || {
            let page = self.next_from(from)?;
            from = PageNumber(page.0 + 1);
            Some(page)
        })
    }

    fn next_from(&self, from: PageNumber) -> Option<PageNumber> {
        let (first, bit) = place(from);
        let mut mask = !(bit - 1);
        for (at, word) in self.words.iter().enumerate().skip(first) {
            let found = word & mask;
            if found != 0 {
                return Some(PageNumber((at as u32) * u64::BITS + found.trailing_zeros() + 1));
            }
            mask = u64::MAX;
        }
        None
    }

    /// Appends the set to a record: its words as far as any is not zero.
    pub fn encode(&self, to: &mut Encoder) {
        let used = self.words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let bytes: Vec<u8> = self.words[..used].iter().flat_map(|word| word.to_le_bytes()).collect();
        to.bytes(&bytes);
    }

    /// Reads a set from a record.
    ///
    /// # Errors
    /// Not such a set.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (words, rest) = from.bytes()?.as_chunks::<8>();
        if !rest.is_empty() || words.last() == Some(&[0; 8]) {
            return Err(DecodeError::Invalid("set of pages"));
        }
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let len = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words, len })
    }
}

fn place(page: PageNumber) -> (usize, u64) {
    let index = page.0.saturating_sub(1);
    ((index / u64::BITS) as usize, 1 << (index % u64::BITS))
}
