//! SQLite's write-ahead log, byte by byte: headers, frames and their running checksum. Pure.
//!
//! **Source**: SQLite file format, section 4.

use super::page::{PAGE_BYTES, Page, PageNumber};

/// Length of the log's header.
pub const HEADER_BYTES: usize = 32;
/// Length of a frame's header.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Length of a frame.
pub const FRAME_BYTES: usize = FRAME_HEADER_BYTES + PAGE_BYTES;

/// The low bit says in which order the checksum takes the bytes of a word.
const MAGIC: u32 = 0x377f_0682;
const FORMAT: u32 = 3_007_000;

/// Two numbers that every frame repeats. When the log starts over the first rises by one and the second
/// is drawn anew, so that frames of before are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salts {
    /// Counts the logs of this database.
    pub count: u32,
    /// Random.
    pub random: u32,
}

impl Salts {
    /// Whether a log with these salts comes right after one with `earlier`.
    #[must_use]
    pub fn follow(self, earlier: Self) -> bool {
        self.count == earlier.count.wrapping_add(1)
    }

    fn bytes(self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&self.count.to_be_bytes());
        bytes[4..].copy_from_slice(&self.random.to_be_bytes());
        bytes
    }
}

/// The checksum that runs through header and frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(u32, u32);

impl Checksum {
    fn run(mut self, bytes: &[u8], big_endian: bool) -> Self {
        let word = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let (words, _) = bytes.as_chunks::<4>();
        let (pairs, _) = words.as_chunks::<2>();
        for [one, two] in pairs {
            self.0 = self.0.wrapping_add(word(*one)).wrapping_add(self.1);
            self.1 = self.1.wrapping_add(word(*two)).wrapping_add(self.0);
        }
        self
    }

    fn bytes(self) -> [u8; 8] {
        Salts { count: self.0, random: self.1 }.bytes()
    }
}

/// What a log's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    /// Of this log.
    pub salts: Salts,
    /// The running checksum behind the header.
    pub checksum: Checksum,
    big_endian: bool,
}

/// What a frame's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Which page.
    pub page: PageNumber,
    /// Pages of the database after the transaction that this frame ends; none if it ends none.
    pub commit: Option<u32>,
}

impl WalHeader {
    /// The header of a new log.
    #[must_use]
    pub fn new(salts: Salts) -> (Self, [u8; HEADER_BYTES]) {
        let mut bytes = [0; HEADER_BYTES];
        for (word, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip([MAGIC, FORMAT, PAGE_BYTES as u32]) {
            *word = value.to_be_bytes();
        }
        bytes[16..24].copy_from_slice(&salts.bytes());
        let checksum = Checksum::default().run(&bytes[..24], false);
        bytes[24..].copy_from_slice(&checksum.bytes());
        (Self { salts, checksum, big_endian: false }, bytes)
    }

    /// Reads a header; none if it is torn, of another format, or of another page size.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
        let [magic, FORMAT, pages, _, count, random, one, two] = words[..] else { return None };
        let big_endian = magic == MAGIC | 1;
        let checksum = Checksum::default().run(&bytes[..24], big_endian);
        let valid = magic & !1 == MAGIC && pages == PAGE_BYTES as u32 && checksum == Checksum(one, two);
        valid.then_some(Self { salts: Salts { count, random }, checksum, big_endian })
    }

    /// Reads the frame behind one whose running checksum was `before`, with its own; none if it is torn
    /// or left from an earlier log.
    #[must_use]
    pub fn frame(&self, before: Checksum, bytes: &[u8; FRAME_BYTES]) -> Option<(FrameHeader, Checksum)> {
        let word = |at: usize| bytes[at..].first_chunk::<4>().map_or(0, |word| u32::from_be_bytes(*word));
        let salts = Salts { count: word(8), random: word(12) };
        let checksum = self.after_frame(before, bytes);
        let (page, pages) = (PageNumber(word(0)), word(4));
        let valid = page.0 != 0 && salts == self.salts && checksum == Checksum(word(16), word(20));
        valid.then(|| (FrameHeader { page, commit: (pages != 0).then_some(pages) }, checksum))
    }

    /// Writes a frame into `to`, behind one whose running checksum was `before`; returns its own.
    pub fn write_frame(
        &self,
        before: Checksum,
        header: FrameHeader,
        page: &Page,
        to: &mut Vec<u8>,
    ) -> Checksum {
        let at = to.len();
        to.extend_from_slice(&header.page.0.to_be_bytes());
        to.extend_from_slice(&header.commit.unwrap_or(0).to_be_bytes());
        to.extend_from_slice(&self.salts.bytes());
        to.extend_from_slice(&[0; 8]);
        to.extend_from_slice(page);
        let checksum = self.after_frame(before, &to[at..]);
        to[at + 16..at + FRAME_HEADER_BYTES].copy_from_slice(&checksum.bytes());
        checksum
    }

    fn after_frame(&self, before: Checksum, bytes: &[u8]) -> Checksum {
        let sum = before.run(&bytes[..8], self.big_endian);
        sum.run(&bytes[FRAME_HEADER_BYTES..], self.big_endian)
    }
}

/// Where frame `index`, counted from 0, begins in the log.
#[must_use]
pub fn frame_offset(index: u32) -> u64 {
    HEADER_BYTES as u64 + u64::from(index) * FRAME_BYTES as u64
}
