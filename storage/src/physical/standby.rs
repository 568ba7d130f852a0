//! A replica's copy of the master database: an ordinary SQLite file and a write-ahead log of our own
//! making, which any SQLite can read.
//!
//! Each transaction is appended to the log as frames; the last of them carries the position and stands
//! for a page beyond the database's end, which SQLite passes over. So pages and position are on stable
//! storage together or not at all. A first copy, and one that replaces another, is written into a file of
//! its own, and counts from the moment `standby.pos` names it. Nothing here decides what is written.
//!
//! A write lock keeps other programs' SQLite out while this is open; what they did before shows in the
//! digest. One thread uses it; every call may block on the disk.

mod log;
mod place;
mod proof;
mod recover;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, fcntl_lock};

use self::log::Log;
use self::place::{Found, Place};
pub use self::proof::Prover;
use super::held;
use super::page::{PAGE_BYTES, Page, PageDigest, PageHash, PageNumber};
use super::position::Position;
use crate::durable;
use crate::error::{Error, Result};
use crate::model::GroupId;
use crate::open;

/// The log is folded into the database from this length on (4 MiB), and not before a proof has ended.
const FOLD_FRAMES: u32 = 1_000;

/// The first file's number.
const FIRST: u64 = 1;

/// A copy, or what there is of one.
#[derive(Debug)]
pub struct Standby {
    directory: PathBuf,
    whole: Option<Whole>,
    /// The file of a copy that is not whole yet.
    part: Option<Part>,
    staging: Staging,
}

/// A copy that was whole once.
#[derive(Debug)]
struct Whole {
    path: PathBuf,
    /// Open as long as the copy: closing it would give up the lock. Proofs hold on to it, too.
    main: Arc<File>,
    log: Log,
    position: Position,
    /// Of the pages as they are; the position's, unless somebody touched them.
    digest: PageDigest,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    main: File,
    generation: u64,
}

/// The transaction that did not end yet.
#[derive(Debug)]
enum Staging {
    None,
    /// Onto the copy: what its pages hash to, and the digest with them.
    Onto {
        hashes: HashMap<PageNumber, PageHash>,
        digest: PageDigest,
    },
    /// Into a file of its own.
    Beside,
}

impl Standby {
    /// The copy in `directory`, which is created if need be.
    ///
    /// # Errors
    /// The device's; [`Error::Busy`] if another program uses the copy.
    pub fn open(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        // A copy in a directory that has no name yet would be lost with the power.
        durable::sync_directory_of(directory)?;
        let place = match Place::read(directory)? {
            Found::Damaged => recover::place(directory)?,
            Found::None => None,
            // Left by a takeover that was cut short.
            Found::Place(place) if !place::file(directory, place.generation).exists() => None,
            Found::Place(place) => Some(place),
        };
        let whole = match place {
            Some(place) => {
                // Left if the power was cut right after another one replaced it.
                place::remove(&place::file(directory, place.generation.saturating_sub(1)))?;
                Some(Whole::open(directory, &place)?)
            }
            None => None,
        };
        Ok(Self { directory: directory.to_owned(), whole, part: None, staging: Staging::None })
    }

    /// Where the copy stands; none if there is none that is whole, or somebody touched it.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.whole.as_ref().filter(|whole| whole.is_intact()).map(|whole| whole.position)
    }

    /// Pages there are to compare: of the copy, else of one that is not whole yet.
    #[must_use]
    pub fn pages(&self) -> u32 {
        match (&self.whole, &self.part) {
            (Some(whole), _) => whole.position.pages,
            (None, Some(part)) => pages_of(&part.main),
            (None, None) => File::open(place::file(&self.directory, FIRST)).map_or(0, |file| pages_of(&file)),
        }
    }

    /// A page as it was committed last; zeros where there is none.
    ///
    /// # Errors
    /// The device's.
    pub fn page(&mut self, page: PageNumber) -> Result<Page> {
        match &self.whole {
            Some(whole) => whole.page(page),
            None => read_page(&self.part()?.main, page),
        }
    }

    /// Begins a transaction; one that did not end is void. `beside` makes it that of a copy of its own,
    /// which replaces this one at its end.
    ///
    /// # Errors
    /// The device's.
    pub fn begin(&mut self, beside: bool) -> Result<()> {
        match &mut self.whole {
            Some(whole) if !beside => {
                whole.is_untouched()?;
                whole.log.begin();
                self.staging = Staging::Onto { hashes: HashMap::new(), digest: whole.digest };
            }
            _ => {
                let part = self.part()?;
                if beside {
                    part.main.set_len(0)?;
                }
                self.staging = Staging::Beside;
            }
        }
        Ok(())
    }

    /// Has the transaction write a page; the latest counts.
    ///
    /// # Errors
    /// The device's; the transaction is void.
    pub fn stage(&mut self, page: PageNumber, content: &Page) -> Result<()> {
        match (&mut self.staging, &mut self.whole) {
            (Staging::Onto { hashes, digest }, Some(whole)) => {
                let hash = PageHash::of(page, content);
                let old = match hashes.insert(page, hash) {
                    Some(staged) => Some(staged),
                    None if page.0 <= whole.position.pages => Some(PageHash::of(page, &whole.page(page)?)),
                    None => None,
                };
                old.into_iter().chain([hash]).for_each(|hash| digest.toggle(hash));
                whole.log.append(page, None, content)
            }
            (Staging::Beside, _) => Ok(self.part()?.main.write_all_at(content, page.offset())?),
            (Staging::None | Staging::Onto { .. }, _) => Err(Error::Closed),
        }
    }

    /// Ends the transaction on stable storage, all or nothing.
    ///
    /// # Errors
    /// [`Error::Diverged`] if its pages are not what the position says, [`Error::Tampered`] if somebody
    /// touched the files, or the device's. The transaction is void and the copy as it was.
    pub fn commit(&mut self, position: &Position) -> Result<()> {
        match std::mem::replace(&mut self.staging, Staging::None) {
            Staging::None => Err(Error::Closed),
            Staging::Onto { hashes, digest } => {
                let whole = self.whole.as_mut().ok_or(Error::Closed)?;
                whole.commit(&hashes, digest, position)?;
                // The transaction stands all the same; the next one tries again.
                if let Err(error) = whole.fold_if_long() {
                    tracing::warn!(%error, "fold the copy's log");
                }
                Ok(())
            }
            Staging::Beside => self.replace(position),
        }
    }

    /// Whether all pages are what the position says. What they are counts from then on.
    ///
    /// # Errors
    /// The device's; [`Error::Deadline`] when `stop` says so.
    pub fn verify(&mut self, stop: &dyn Fn() -> bool) -> Result<bool> {
        let Some(whole) = &mut self.whole else { return Ok(true) };
        whole.digest = whole.scan(stop)?;
        Ok(whole.is_intact())
    }

    /// Opens the copy as it is committed now, for a proof by another thread, which is given up when `stop`
    /// says so. Later transactions do not show there.
    ///
    /// # Errors
    /// There is no copy, or SQLite cannot read it.
    pub fn prover(&mut self, stop: impl Fn() -> bool + Send + Sync + 'static) -> Result<Prover> {
        let whole = self.whole.as_mut().ok_or(Error::Closed)?;
        let pages = proof::View::new(&whole.main, &whole.log, whole.position.pages)?;
        let prover = Prover::open(&whole.path, pages, Arc::new(stop));
        lock(&whole.main)?;
        prover
    }

    /// Whose data the copy is; none if there is no copy.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        self.whole.as_ref().map(|whole| whole.position.group)
    }

    /// Folds what is in the log, when nothing else is to be done: pages as they were before do not stay
    /// there. Not within a transaction, not before a proof has ended, and not while the pages are not what was
    /// written: SQLite may not read them.
    ///
    /// # Errors
    /// The device's.
    pub fn rest(&mut self) -> Result<()> {
        match (&self.staging, &mut self.whole) {
            (Staging::None, Some(whole)) if whole.is_intact() && !whole.is_being_proven() => whole.fold(),
            _ => Ok(()),
        }
    }

    /// Folds the log into the database, unless the pages are not what was written: they stay as they are.
    ///
    /// # Errors
    /// The device's.
    pub fn close(mut self) -> Result<()> {
        self.whole.as_mut().filter(|whole| whole.is_intact()).map_or(Ok(()), Whole::fold)
    }

    /// Makes the database at `path`, which nobody uses any more, what a copy in `directory` begins with: of its
    /// pages only those come again that the server has otherwise. False if there is a copy already, or no
    /// such database. Cut short, the file is at one of the two places.
    ///
    /// # Errors
    /// The device's.
    pub fn seed(directory: &Path, path: &Path) -> Result<bool> {
        if Self::is_whole(directory)? || !path.exists() {
            return Ok(false);
        }
        open::fold_copy(path)?;
        for suffix in ["-wal", "-shm", "-anchor"] {
            place::remove(&open::with_suffix(path, suffix))?;
        }
        std::fs::create_dir_all(directory)?;
        durable::sync_directory_of(directory)?;
        durable::rename(path, &place::file(directory, FIRST))?;
        Ok(true)
    }

    /// Whether there is a whole copy in `directory`; opens nothing.
    ///
    /// # Errors
    /// The device's, or a damaged `standby.pos`.
    pub fn is_whole(directory: &Path) -> Result<bool> {
        match Place::read(directory)? {
            Found::Place(place) => Ok(place::file(directory, place.generation).exists()),
            Found::Damaged => Ok(recover::place(directory)?.is_some()),
            Found::None => Ok(false),
        }
    }

    /// Moves the copy to `path`, where nothing may be yet, as an ordinary database; it is a copy no more.
    /// Cut short, the file is at one of the two places, whole.
    ///
    /// # Errors
    /// There is no whole copy, or the device's.
    pub fn take_over(mut self, path: &Path) -> Result<()> {
        let mut whole = self.whole.take().ok_or(Error::Closed)?;
        whole.fold()?;
        let from = whole.path.clone();
        // SQLite would take a log that is left behind for that of the next database of this name.
        for suffix in ["-wal", "-shm"] {
            place::remove(&open::with_suffix(&from, suffix))?;
        }
        durable::rename(&from, path)?;
        Place::forget(&self.directory)
    }

    fn part(&mut self) -> Result<&Part> {
        if self.part.is_none() {
            let generation = match Place::read(&self.directory)? {
                Found::Place(place) => place.generation + 1,
                Found::None | Found::Damaged => FIRST,
            };
            let path = place::file(&self.directory, generation);
            let main = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            self.part = Some(Part { path, main, generation });
        }
        self.part.as_ref().ok_or(Error::Closed)
    }

    /// Makes the file of its own the copy.
    fn replace(&mut self, position: &Position) -> Result<()> {
        let part = self.part()?;
        let (generation, path) = (part.generation, part.path.clone());
        part.main.set_len(u64::from(position.pages) * PAGE_BYTES as u64)?;
        if scan(position.pages, |page| read_page(&part.main, page), &|| false)? != position.digest {
            return Err(Error::Diverged);
        }
        part.main.sync_all()?;
        let place = Place { generation, position: *position };
        place.write(&self.directory)?;
        // From here on the other one is not looked at any more.
        let before = self.whole.take().map(|whole| whole.path);
        self.part = None;
        self.whole = Some(Whole::open(&self.directory, &place)?);
        before.map_or(Ok(()), |before| {
            tracing::debug!(?before, replaced_by = ?path, "remove a copy");
            place::remove(&before)
        })
    }
}

impl Whole {
    fn open(directory: &Path, place: &Place) -> Result<Self> {
        let path = place::file(directory, place.generation);
        let main = held::open(&path)?;
        lock(&main)?;
        let (log, found) = Log::open(&path)?;
        let position = found.unwrap_or(place.position);
        Ok(Self { path, main, log, position, digest: position.digest })
    }

    fn page(&self, page: PageNumber) -> Result<Page> {
        match self.log.page(page)? {
            Some(content) => Ok(content),
            None if page.0 <= self.position.pages => read_page(&self.main, page),
            None => Ok([0; PAGE_BYTES]),
        }
    }

    fn scan(&self, stop: &dyn Fn() -> bool) -> Result<PageDigest> {
        scan(self.position.pages, |page| self.page(page), stop)
    }

    /// Whether the files are those that are open here.
    fn is_untouched(&self) -> Result<()> {
        lock(&self.main)?;
        if same_file(&self.path, &self.main)? && self.log.is_untouched()? {
            Ok(())
        } else {
            Err(Error::Tampered)
        }
    }

    fn commit(
        &mut self,
        staged: &HashMap<PageNumber, PageHash>,
        mut digest: PageDigest,
        position: &Position,
    ) -> Result<()> {
        let top = staged.keys().map(|page| page.0).max().unwrap_or(0).max(self.position.pages);
        for page in (position.pages + 1..=top).map(PageNumber).filter(|page| *page != PageNumber::LOCK) {
            match staged.get(&page) {
                Some(hash) => digest.toggle(*hash),
                None if page.0 <= self.position.pages => digest.toggle(PageHash::of(page, &self.page(page)?)),
                None => {}
            }
        }
        if digest != position.digest {
            self.log.begin();
            self.digest = self.scan(&|| false)?;
            return Err(Error::Diverged);
        }
        self.is_untouched()?;
        self.log.commit(position)?;
        (self.position, self.digest) = (*position, digest);
        Ok(())
    }

    fn fold_if_long(&mut self) -> Result<()> {
        if self.is_being_proven() || self.log.frames() < FOLD_FRAMES { Ok(()) } else { self.fold() }
    }

    /// Whether the pages are what the position says, as they were read last.
    fn is_intact(&self) -> bool {
        self.digest == self.position.digest
    }

    /// A proof holds on to the file, and reads what is in the log.
    fn is_being_proven(&self) -> bool {
        Arc::strong_count(&self.main) > 1
    }

    /// Folds the log into the database: first is noted where that leads.
    fn fold(&mut self) -> Result<()> {
        if self.log.frames() == 0 {
            return Ok(());
        }
        self.is_untouched()?;
        let directory = self.path.parent().unwrap_or(Path::new(""));
        let generation = place::generation(&self.path).ok_or(Error::Tampered)?;
        Place { generation, position: self.position }.write(directory)?;
        let folded = open::fold_copy(&self.path);
        lock(&self.main)?;
        folded?;
        self.log.start_over()
    }
}

/// Keeps other programs out, or notices that one is in.
fn lock(main: &File) -> Result<()> {
    fcntl_lock(main, FlockOperation::NonBlockingLockExclusive).map_err(|_| Error::Busy)
}

/// The digest of `count` pages.
fn scan(
    count: u32,
    page: impl Fn(PageNumber) -> Result<Page>,
    stop: &dyn Fn() -> bool,
) -> Result<PageDigest> {
    let mut digest = PageDigest::EMPTY;
    for number in PageNumber::all(count) {
        if number.0.is_multiple_of(256) && stop() {
            return Err(Error::Deadline);
        }
        digest.toggle(PageHash::of(number, &page(number)?));
    }
    Ok(digest)
}

/// Whether the file of this name is the one that is open.
fn same_file(path: &Path, open: &File) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let open = open.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn pages_of(file: &File) -> u32 {
    let bytes = file.metadata().map_or(0, |metadata| metadata.len());
    u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX)
}

fn read_page(file: &File, page: PageNumber) -> Result<Page> {
    let mut content = [0; PAGE_BYTES];
    super::pages::read_or_zero(file, &mut content, page.offset())?;
    Ok(content)
}
