//! The copy's write-ahead log, written here and not by SQLite.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::same_file;
use crate::durable;
use crate::error::Result;
use crate::open::with_suffix;
use crate::physical::page::{PAGE_BYTES, Page, PageNumber};
use crate::physical::pages::read_or_zero;
use crate::physical::position::Position;
use crate::physical::wal::{
    Checksum, FRAME_BYTES, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Salts, WalHeader, frame_offset,
};

/// Stands for the position in a frame. No database gets so long.
const POSITION_PAGE: PageNumber = PageNumber(0xffff_fff0);
/// Frames kept in memory before they are written.
const BUFFER_FRAMES: usize = 256;

/// The log, open.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    header: WalHeader,
    /// The header is in the file.
    begun: bool,
    /// Committed frames, and the running checksum behind them.
    frames: u32,
    checksum: Checksum,
    /// The last committed frame of each page.
    index: HashMap<PageNumber, u32>,
    /// The transaction that did not end yet.
    staged: Staged,
}

#[derive(Debug, Default)]
struct Staged {
    pages: Vec<PageNumber>,
    checksum: Checksum,
    buffer: Vec<u8>,
    /// Frames of the transaction before those in the buffer.
    written: u32,
}

impl Log {
    /// The log of the database at `database`, and the position it leads to, if any.
    pub(super) fn open(database: &Path) -> Result<(Self, Option<Position>)> {
        let path = with_suffix(database, "-wal");
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // What is committed into a log that has no name yet would be lost with the power.
        durable::sync_directory_of(&path)?;
        let mut bytes = [0; HEADER_BYTES];
        read_or_zero(&file, &mut bytes, 0)?;
        let found = WalHeader::parse(&bytes);
        let header = match found {
            Some(header) => header,
            None => WalHeader::new(Salts { count: 1, random: 1 }).0,
        };
        let mut log = Self {
            path,
            file,
            header,
            begun: found.is_some(),
            frames: 0,
            checksum: header.checksum,
            index: HashMap::new(),
            staged: Staged::default(),
        };
        let position = match found {
            Some(_) => {
                // A process that was killed may have left what it did not sync, and nobody was told of.
                log.file.sync_data()?;
                log.recover()?
            }
            None => None,
        };
        log.begin();
        Ok((log, position))
    }

    /// Reads all transactions that ended. What is behind the last is overwritten by the next.
    fn recover(&mut self) -> Result<Option<Position>> {
        let mut position = None;
        let (mut checksum, mut pages) = (self.checksum, Vec::new());
        // As SQLite does: a frame whose last bytes are missing is none, were they all zeros.
        let whole = self.file.metadata()?.len().saturating_sub(HEADER_BYTES as u64) / FRAME_BYTES as u64;
        for number in 0..u32::try_from(whole).unwrap_or(u32::MAX) {
            let mut bytes = [0; FRAME_BYTES];
            self.file.read_exact_at(&mut bytes, frame_offset(number))?;
            let Some((header, after)) = self.header.frame(checksum, &bytes) else { break };
            checksum = after;
            pages.push((header.page, number));
            let Some(count) = header.commit else { continue };
            let Some(found) = position_in(header.page, &bytes) else { break };
            self.accept(pages.drain(..), count);
            (self.frames, self.checksum, position) = (number + 1, checksum, Some(found));
        }
        Ok(position)
    }

    fn accept(&mut self, pages: impl Iterator<Item = (PageNumber, u32)>, count: u32) {
        self.index.extend(pages.filter(|(page, _)| *page != POSITION_PAGE));
        self.index.retain(|page, _| page.0 <= count);
    }

    /// Committed frames.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    /// A page, if it is in the log.
    pub(super) fn page(&self, page: PageNumber) -> Result<Option<Page>> {
        self.index.get(&page).map(|frame| read_frame(&self.file, *frame)).transpose()
    }

    /// The file, and the last committed frame of each page.
    pub(super) fn view(&self) -> Result<(File, HashMap<PageNumber, u32>)> {
        Ok((self.file.try_clone()?, self.index.clone()))
    }

    /// Forgets a transaction that did not end, and begins another.
    pub(super) fn begin(&mut self) {
        self.staged = Staged { checksum: self.checksum, ..Staged::default() };
    }

    /// Appends a page to the transaction.
    pub(super) fn append(&mut self, page: PageNumber, commit: Option<u32>, content: &Page) -> Result<()> {
        let staged = &mut self.staged;
        staged.checksum = self.header.write_frame(
            staged.checksum,
            FrameHeader { page, commit },
            content,
            &mut staged.buffer,
        );
        staged.pages.push(page);
        if staged.buffer.len() >= BUFFER_FRAMES * FRAME_BYTES { self.flush() } else { Ok(()) }
    }

    /// Ends the transaction on stable storage.
    pub(super) fn commit(&mut self, position: &Position) -> Result<()> {
        self.append(POSITION_PAGE, Some(position.pages), &page_of(position))?;
        self.flush()?;
        if let Err(error) = self.file.sync_data() {
            // The system may show what the disk does not have: it must not be found again.
            self.file.set_len(frame_offset(self.frames))?;
            return Err(error.into());
        }
        let staged = std::mem::take(&mut self.staged);
        let first = self.frames;
        self.accept(staged.pages.iter().copied().zip(first..), position.pages);
        self.frames += staged.pages.len() as u32;
        self.checksum = staged.checksum;
        self.begin();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let staged = &mut self.staged;
        if !self.begun {
            // Not valid before frames follow, so it needs no sync of its own.
            self.file.write_all_at(&WalHeader::new(self.header.salts).1, 0)?;
            self.begun = true;
        }
        let frames = (staged.buffer.len() / FRAME_BYTES) as u32;
        self.file.write_all_at(&staged.buffer, frame_offset(self.frames + staged.written))?;
        staged.buffer.clear();
        staged.written += frames;
        Ok(())
    }

    /// The log was folded into the database and is empty.
    pub(super) fn start_over(&mut self) -> Result<()> {
        let Salts { count, random } = self.header.salts;
        // Any other number does: what is left of the log before has the other count.
        let salts = Salts { count: count.wrapping_add(1), random: random.rotate_left(7) ^ self.frames };
        self.header = WalHeader::new(salts).0;
        (self.begun, self.frames, self.checksum) = (false, 0, self.header.checksum);
        self.index.clear();
        self.begin();
        Ok(())
    }

    /// Whether the file is the one that is open, and as long as what was written into it.
    pub(super) fn is_untouched(&self) -> Result<bool> {
        let long = self.frames == 0 || self.file.metadata()?.len() >= frame_offset(self.frames);
        Ok(long && same_file(&self.path, &self.file)?)
    }
}

/// The page in a frame.
pub(super) fn read_frame(log: &File, frame: u32) -> Result<Page> {
    let mut content = [0; PAGE_BYTES];
    log.read_exact_at(&mut content, frame_offset(frame) + FRAME_HEADER_BYTES as u64)?;
    Ok(content)
}

fn page_of(position: &Position) -> Page {
    let record = position.encode();
    let mut page = [0; PAGE_BYTES];
    page[..2].copy_from_slice(&(record.len() as u16).to_be_bytes());
    page[2..2 + record.len()].copy_from_slice(&record);
    page
}

fn position_in(page: PageNumber, frame: &[u8; FRAME_BYTES]) -> Option<Position> {
    let content = frame.get(FRAME_HEADER_BYTES..).filter(|_| page == POSITION_PAGE)?;
    let length = usize::from(u16::from_be_bytes(*content.first_chunk()?));
    Position::decode(content.get(2..2 + length)?).ok()
}
