//! The pages of a database in use, as of its last commit, and what each commit changed of them.
//!
//! The database's writer thread owns this beside its connection, and is the only one to call it: between
//! two of its own transactions nothing moves, neither a page nor the log. It reads SQLite's files by
//! descriptors of its own; that of the database is the one of `held`.

use std::collections::HashMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::anchor::{Anchor, Evidence};
use super::held;
use super::moment::{Claim, Moment};
use super::page::{PAGE_BYTES, Page, PageDigest, PageHash, PageNumber};
use super::position::LogId;
use super::wal::{
    Checksum, FRAME_BYTES, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Salts, WalHeader, frame_offset,
};
use crate::error::{Error, Result};
use crate::open::with_suffix;

/// A page that a transaction changed. One may come more than once in a transaction, the latest last.
#[derive(Debug)]
pub struct Changed<'a> {
    /// Which.
    pub page: PageNumber,
    /// As it was; none if there was no such page.
    pub old: Option<&'a Page>,
    /// As it is.
    pub new: &'a Page,
}

/// A page of a database that is in use.
type Heard<'a> = &'a mut dyn FnMut(Changed<'_>);

/// The pages as of the last commit.
#[derive(Debug)]
pub struct Pages {
    main: Arc<File>,
    log: Log,
    count: u32,
    id: LogId,
    transaction: u64,
    digest: PageDigest,
    hashed: Hashed,
    /// What somebody reads at leisure.
    moment: Option<Moment>,
}

/// Which pages the digest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hashed {
    /// Those up to this one.
    UpTo(u32),
    All,
}

impl Hashed {
    fn has(self, page: PageNumber) -> bool {
        match self {
            Self::All => true,
            Self::UpTo(last) => page.0 <= last,
        }
    }
}

/// The log's file, as far as it was read.
#[derive(Debug)]
struct Log {
    file: File,
    /// None while it is empty.
    header: Option<WalHeader>,
    /// Of the header that was there last.
    salts: Salts,
    checksum: Checksum,
    frames: u32,
    /// The last frame of each page.
    index: HashMap<PageNumber, u32>,
}

impl Pages {
    /// The pages of the database at `path`, which is open and at rest. With an anchor that leads here the
    /// run of transactions goes on, and `heard` is told of all pages in the log; without, a new run
    /// begins under the name `id`.
    pub(crate) fn open(path: &Path, id: LogId, anchor: Option<&Anchor>, heard: Heard<'_>) -> Result<Self> {
        let main = held::open(path)?;
        let log = Log::open(path)?;
        let mut pages = Self {
            count: pages_of(&main)?,
            main,
            log,
            id,
            transaction: 0,
            digest: PageDigest::EMPTY,
            hashed: Hashed::UpTo(0),
            moment: None,
        };
        let committed = pages.log.committed()?;
        match anchor.and_then(|anchor| Some((anchor, pages.base(anchor, committed)?))) {
            Some((anchor, base)) => {
                pages.follow(base, &mut |_| {})?;
                pages.count = anchor.pages;
                (pages.id, pages.transaction) = (anchor.log, anchor.transaction);
                (pages.digest, pages.hashed) = (anchor.digest, Hashed::All);
                pages.log.index.keys().try_for_each(|page| {
                    let new = pages.page(*page)?;
                    heard(Changed { page: *page, old: None, new: &new });
                    Ok::<_, Error>(())
                })?;
            }
            None => pages.transaction = 0,
        }
        pages.follow(committed, heard)?;
        Ok(pages)
    }

    /// At which frame of the log an anchor's transaction ends; none if that cannot be proven.
    fn base(&self, anchor: &Anchor, committed: u32) -> Option<u32> {
        // Nothing was folded into the file since it was closed: whatever log there is builds on that.
        if anchor.closed.is_some() && anchor.closed == evidence(&self.main).ok() {
            return Some(0);
        }
        let salts = self.log.header?.salts;
        // The log starts over only when all of it was folded back, and each fold is anchored.
        if salts.follow(anchor.salts) {
            return Some(0);
        }
        (salts == anchor.salts && anchor.frames <= committed).then_some(anchor.frames)
    }

    /// How many pages the database has.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The run of transactions.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.id
    }

    /// The last transaction.
    #[must_use]
    pub fn transaction(&self) -> u64 {
        self.transaction
    }

    /// The digest of all pages; none as long as [`Pages::hash_on`] has work to do.
    #[must_use]
    pub fn digest(&self) -> Option<PageDigest> {
        (self.hashed == Hashed::All).then_some(self.digest)
    }

    /// Takes up to `count` more pages into the digest. Whether all are in it.
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn hash_on(&mut self, count: u32) -> Result<bool> {
        let Hashed::UpTo(before) = self.hashed else { return Ok(true) };
        let last = before.saturating_add(count).min(self.count);
        for page in (before + 1..=last).map(PageNumber).filter(|page| *page != PageNumber::LOCK) {
            let hash = PageHash::of(page, &self.page(page)?);
            self.digest.toggle(hash);
        }
        self.hashed = if last == self.count { Hashed::All } else { Hashed::UpTo(last) };
        Ok(last == self.count)
    }

    /// A page's content.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn page(&self, page: PageNumber) -> Result<Page> {
        let mut content = [0; PAGE_BYTES];
        match self.log.index.get(&page) {
            Some(frame) => {
                let at = frame_offset(*frame) + FRAME_HEADER_BYTES as u64;
                self.log.file.read_exact_at(&mut content, at)?;
            }
            None => read_or_zero(&self.main, &mut content, page.offset())?,
        }
        Ok(content)
    }

    /// Reads the log up to its frame number `frames`, where a transaction ends.
    pub(crate) fn follow(&mut self, frames: u32, heard: Heard<'_>) -> Result<()> {
        self.log.look_for_restart()?;
        let mut top = self.count;
        while self.log.frames < frames {
            let (header, new) = self.log.next()?.ok_or(Error::LogLost)?;
            let page = header.page;
            let exists = page.0 <= self.count || self.log.index.contains_key(&page);
            let old = exists.then(|| self.page(page)).transpose()?;
            self.exchange(page, old.as_ref(), Some(&new));
            heard(Changed { page, old: old.as_ref(), new: &new });
            self.log.accept(page);
            top = top.max(page.0);
            if let Some(count) = header.commit {
                self.grow(count, heard)?;
                self.cut(count, top)?;
                self.transaction += 1;
                top = count;
            }
        }
        Ok(())
    }

    /// Pages that a transaction added without writing them are what the file has in their place.
    fn grow(&mut self, count: u32, heard: Heard<'_>) -> Result<()> {
        for page in (self.count + 1..=count).map(PageNumber) {
            if page != PageNumber::LOCK && !self.log.index.contains_key(&page) {
                let new = self.page(page)?;
                self.exchange(page, None, Some(&new));
                heard(Changed { page, old: None, new: &new });
            }
        }
        Ok(())
    }

    /// Takes pages beyond the new end out of the digest, `top` being the last that was there.
    fn cut(&mut self, count: u32, top: u32) -> Result<()> {
        for page in (count + 1..=top).map(PageNumber) {
            let existed = page.0 <= self.count || self.log.index.contains_key(&page);
            if !existed || page == PageNumber::LOCK {
                continue;
            }
            let wanted = self.moment.as_ref().is_some_and(|moment| moment.wants(page));
            if self.hashed.has(page) || wanted {
                let content = self.page(page)?;
                self.exchange(page, Some(&content), None);
            }
        }
        if count < top {
            self.log.index.retain(|page, _| page.0 <= count);
        }
        self.count = count;
        Ok(())
    }

    fn exchange(&mut self, page: PageNumber, old: Option<&Page>, new: Option<&Page>) {
        if let (Some(moment), Some(old)) = (&mut self.moment, old) {
            moment.put_aside(page, old);
        }
        if self.hashed.has(page) {
            old.into_iter().chain(new).for_each(|content| self.digest.toggle(PageHash::of(page, content)));
        }
    }

    /// From here on the pages of this moment can be read, until the claim is dropped. How many there are.
    ///
    /// # Errors
    /// [`Error::Busy`] while another moment is being read; the file system's.
    pub(crate) fn hold_moment(&mut self, path: &Path, claim: Claim) -> Result<u32> {
        if self.has_moment() {
            return Err(Error::Busy);
        }
        self.moment = Some(Moment::new(path, claim, self.count)?);
        Ok(self.count)
    }

    /// Whether somebody still wants a moment; one that nobody wants ends here.
    pub(crate) fn has_moment(&mut self) -> bool {
        self.moment.take_if(|moment| moment.is_over());
        self.moment.is_some()
    }

    /// The next pages of a moment; nothing at its end.
    ///
    /// # Errors
    /// [`Error::Busy`] if the moment was lost; a page cannot be read.
    pub(crate) fn portion(&mut self, claim: &Claim, pages: u32) -> Result<Vec<u8>> {
        let mut moment = self.moment.take_if(|moment| moment.is_of(claim)).ok_or(Error::Busy)?;
        let portion = moment.portion(pages, |page| self.page(page));
        self.moment = Some(moment);
        portion
    }

    /// Whether a transaction follows in the log on what was read of it. Frames of none may: those of a process that
    /// was killed in the middle of one, until the next is written over them.
    pub(crate) fn is_behind(&self) -> Result<bool> {
        Ok(self.log.committed()? > self.log.frames)
    }

    /// Sees whether the log was emptied since the last commit.
    pub(crate) fn look_again(&mut self) -> Result<()> {
        self.log.look_for_restart()
    }

    /// Where the database stands; none before all pages are in the digest.
    pub(crate) fn anchor(&self, kept: Vec<u8>) -> Option<Anchor> {
        Some(Anchor {
            log: self.id,
            transaction: self.transaction,
            pages: self.count,
            digest: self.digest()?,
            salts: self.log.salts,
            frames: self.log.frames,
            closed: None,
            kept,
        })
    }

    /// [`Pages::anchor`], of a database whose log is empty and that is being closed.
    pub(crate) fn closing_anchor(&self, kept: Vec<u8>) -> Result<Option<Anchor>> {
        let closed = Some(evidence(&self.main)?);
        Ok(self.anchor(kept).map(|anchor| Anchor { closed, ..anchor }))
    }
}

impl Log {
    fn open(path: &Path) -> Result<Self> {
        let file = File::open(with_suffix(path, "-wal"))?;
        let mut log = Self {
            file,
            header: None,
            salts: Salts { count: 0, random: 0 },
            checksum: Checksum::default(),
            frames: 0,
            index: HashMap::new(),
        };
        // A process that was killed may have left what it did not sync: nobody is to have it before the disk.
        log.file.sync_data()?;
        log.look_for_restart()?;
        Ok(log)
    }

    /// Goes to the beginning if the log started over since it was last read.
    fn look_for_restart(&mut self) -> Result<()> {
        let mut bytes = [0; HEADER_BYTES];
        read_or_zero(&self.file, &mut bytes, 0)?;
        let header = WalHeader::parse(&bytes);
        if header != self.header {
            (self.header, self.frames, self.checksum) = (header, 0, Checksum::default());
            self.index.clear();
            if let Some(header) = header {
                (self.salts, self.checksum) = (header.salts, header.checksum);
            }
        }
        Ok(())
    }

    /// The frame behind those accepted; none if there is no valid one.
    fn next(&mut self) -> Result<Option<(FrameHeader, Page)>> {
        let Some((header, checksum, page)) = self.frame(self.frames, self.checksum)? else { return Ok(None) };
        self.checksum = checksum;
        Ok(Some((header, page)))
    }

    fn accept(&mut self, page: PageNumber) {
        self.index.insert(page, self.frames);
        self.frames += 1;
    }

    fn frame(&self, number: u32, before: Checksum) -> Result<Option<(FrameHeader, Checksum, Page)>> {
        let Some(log) = self.header else { return Ok(None) };
        let mut bytes = [0; FRAME_BYTES];
        match self.file.read_exact_at(&mut bytes, frame_offset(number)) {
            // As SQLite does: a frame whose last bytes are missing is none, were they all zeros.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let content = bytes.last_chunk::<PAGE_BYTES>().copied();
        Ok(log.frame(before, &bytes).zip(content).map(|((header, sum), page)| (header, sum, page)))
    }

    /// How many frames the log has up to the end of its last transaction; those accepted end one.
    fn committed(&self) -> Result<u32> {
        let (mut checksum, mut committed) = (self.checksum, self.frames);
        for number in self.frames.. {
            let Some((header, after, _)) = self.frame(number, checksum)? else { break };
            checksum = after;
            if header.commit.is_some() {
                committed = number + 1;
            }
        }
        Ok(committed)
    }
}

fn pages_of(main: &File) -> Result<u32> {
    u32::try_from(main.metadata()?.len() / PAGE_BYTES as u64).map_err(|_| Error::LogLost)
}

fn evidence(main: &File) -> Result<Evidence> {
    let found = main.metadata()?;
    Ok(Evidence { bytes: found.len(), changed_seconds: found.ctime(), changed_nanos: found.ctime_nsec() })
}

/// Fills a buffer; what is beyond the file's end is zero.
pub(crate) fn read_or_zero(file: &File, buffer: &mut [u8], mut at: u64) -> Result<()> {
    let mut rest = &mut buffer[..];
    while !rest.is_empty() {
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(count) => {
                at += count as u64;
                rest = &mut rest[count..];
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    rest.fill(0);
    Ok(())
}

#[cfg(test)]
mod tests;
