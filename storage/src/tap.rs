//! What follows a database's commits page by page, and decides when those who wrote are answered.
//!
//! A tap lives on the writer thread: it hears of each commit when that is on stable storage and before
//! anybody is answered, and between commits it can be given other work with the pages at rest.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::durable;
use crate::error::{Error, Result};
use crate::open::with_suffix;
use crate::physical::anchor::Anchor;
use crate::physical::{Changed, LogId, Pages};
use crate::store::Database;

/// Follows one database. Called on its writer thread; must not block.
pub trait Tap<D: Database>: Send {
    /// A name for a new run of transactions: random.
    fn name(&mut self) -> LogId;
    /// From here on it follows, and this is where the database stands. `kept` is what it asked to be kept
    /// when the run of transactions that goes on was last anchored, and pages that changed since were
    /// given to [`Tap::changed`] before; none if a new run begins.
    fn begin(&mut self, pages: &mut Pages, kept: Option<&[u8]>, read: &D::Read<'_>);
    /// A transaction changed a page. Its other pages follow, then [`Tap::committed`]; or nothing more,
    /// if the log cannot be read, and then [`Tap::begin`].
    fn changed(&mut self, changed: Changed<'_>);
    /// What changed is a transaction on stable storage.
    fn committed(&mut self, pages: &mut Pages, read: &D::Read<'_>);
    /// Who is answered now.
    fn verdict(&self) -> Verdict;
    /// What it wants to know again after a crash, with all that changed so far.
    fn keep(&self) -> Vec<u8>;
}

/// Who of those that wrote is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Everybody who wrote up to this transaction, and is told that it is done.
    pub confirmed: u64,
    /// Of the others those who wrote up to this one: [`Error::Unconfirmed`].
    pub given_up: u64,
}

impl Verdict {
    /// Everybody is answered as soon as the commit is on stable storage here.
    pub const ALL: Self = Self { confirmed: u64::MAX, given_up: 0 };
}

/// Requests of one commit that are not answered yet.
struct Held<J> {
    /// None if it is not known, because the run was lost since.
    transaction: Option<u64>,
    jobs: Vec<J>,
}

/// A tap in place.
pub(crate) struct Tapped<D: Database, J> {
    database: PathBuf,
    /// None until the log has been read, and after that failed.
    pages: Option<Pages>,
    tap: Box<dyn Tap<D>>,
    held: VecDeque<Held<J>>,
    /// What tells that another connection wrote; none before it was asked.
    version: Option<i64>,
    /// Nobody set it: it is there for a snapshot.
    for_a_moment: bool,
}

/// Follows nothing: the pages are asked for, and the commits are nobody's business.
struct Nobody;

impl<D: Database> Tap<D> for Nobody {
    fn name(&mut self) -> LogId {
        LogId([0; 16])
    }

    fn begin(&mut self, _pages: &mut Pages, _kept: Option<&[u8]>, _read: &D::Read<'_>) {}

    fn changed(&mut self, _changed: Changed<'_>) {}

    fn committed(&mut self, _pages: &mut Pages, _read: &D::Read<'_>) {}

    fn verdict(&self) -> Verdict {
        Verdict::ALL
    }

    fn keep(&self) -> Vec<u8> {
        Vec::new()
    }
}

impl<D: Database, J> Tapped<D, J> {
    /// A tap on the database at `path`.
    pub(crate) fn new(path: &Path, tap: Box<dyn Tap<D>>) -> Self {
        let (held, database) = (VecDeque::new(), path.to_owned());
        Self { database, pages: None, tap, held, version: None, for_a_moment: false }
    }

    /// What has the pages of the database at `path`, and holds up nobody.
    pub(crate) fn for_a_moment(path: &Path) -> Self {
        Self { for_a_moment: true, ..Self::new(path, Box::new(Nobody)) }
    }

    /// Whether nobody set it.
    pub(crate) fn is_for_a_moment(&self) -> bool {
        self.for_a_moment
    }

    /// Whether nobody set it, and what it is there for is read or lost.
    pub(crate) fn is_moment_over(&mut self) -> bool {
        self.for_a_moment && self.pages.as_mut().is_none_or(|pages| !pages.has_moment())
    }

    /// The pages at rest; found out anew where the database stands if need be.
    pub(crate) fn pages(&mut self, connection: &Connection) -> Result<&mut Pages> {
        self.look_for_others(connection)?;
        if self.pages.is_none() {
            self.held.iter_mut().for_each(|held| held.transaction = None);
            let anchor = read_anchor(&self.database)?;
            let (name, tap) = (self.tap.name(), &mut self.tap);
            let mut heard = |changed: Changed<'_>| tap.changed(changed);
            let mut pages = Pages::open(&self.database, name, anchor.as_ref(), &mut heard)?;
            let goes_on = anchor.filter(|anchor| anchor.log == pages.log());
            if goes_on.is_none() {
                forget_anchor(&self.database)?;
            }
            let kept = goes_on.as_ref().map(|anchor| anchor.kept.as_slice());
            self.tap.begin(&mut pages, kept, &D::read(connection));
            self.pages = Some(pages);
        }
        let pages = self.pages.as_mut().ok_or(Error::LogLost)?;
        pages.look_again()?;
        Ok(pages)
    }

    /// Sees whether another connection wrote, or folded the log and emptied it: nobody knows what that
    /// changed, so a new run begins. Within a transaction nobody can after this.
    pub(crate) fn look_for_others(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare_cached("PRAGMA data_version")?;
        let version = statement.query_row([], |row| row.get(0))?;
        let before = self.version.replace(version);
        if before.is_some_and(|before| before != version) && self.pages.take().is_some() {
            tracing::warn!("another program used the database; the replica is compared with it");
            // Before a commit of ours makes the log look like the one after the anchor's.
            forget_anchor(&self.database)?;
        }
        Ok(())
    }

    /// The connection is another one, and counts anew.
    pub(crate) fn reconnected(&mut self) {
        self.version = None;
    }

    /// Reads what was committed, the log being `frames` long, and holds its requests.
    pub(crate) fn committed(&mut self, frames: u32, connection: &Connection, jobs: Vec<J>) -> Result<()> {
        let read = self.read(frames, connection);
        if read.is_err() {
            self.pages = None;
        }
        // Requests that changed nothing wait as well: what they were told may not be confirmed yet.
        let transaction = read.as_ref().ok().copied();
        self.held.push_back(Held { transaction, jobs });
        read.map(drop)
    }

    fn read(&mut self, frames: u32, connection: &Connection) -> Result<u64> {
        let tap = &mut self.tap;
        if let Some(pages) = &mut self.pages {
            let before = pages.transaction();
            pages.follow(frames, &mut |changed| tap.changed(changed))?;
            // Nobody tells how long the log is any more.
            if pages.is_behind()? {
                return Err(Error::LogLost);
            }
            if pages.transaction() != before {
                tap.committed(pages, &D::read(connection));
            }
        }
        Ok(self.pages(connection)?.transaction())
    }

    /// Requests that are to be answered now, and whether they are confirmed.
    pub(crate) fn due(&mut self) -> Vec<(J, bool)> {
        let verdict = self.tap.verdict();
        let mut due = Vec::new();
        while let Some(held) = self.held.front() {
            let confirmed = verdict == Verdict::ALL
                || held.transaction.is_some_and(|transaction| transaction <= verdict.confirmed);
            let given_up = held.transaction.is_none_or(|transaction| transaction <= verdict.given_up);
            if !confirmed && !given_up {
                break;
            }
            due.extend(
                self.held.pop_front().into_iter().flat_map(|held| held.jobs).map(|job| (job, confirmed)),
            );
        }
        due
    }

    /// Everybody that waits; the tap is taken off.
    pub(crate) fn end(self) -> Vec<J> {
        self.held.into_iter().flat_map(|held| held.jobs).collect()
    }

    /// Notes where the database stands, before its log is folded back. When that cannot be noted, it is
    /// forgotten: after a crash a replica is then compared page by page, and folding goes on.
    pub(crate) fn anchor(&self) -> Result<()> {
        let anchor = self.pages.as_ref().and_then(|pages| pages.anchor(self.tap.keep()));
        let Some(anchor) = anchor else { return forget_anchor(&self.database) };
        durable::replace(&anchor_path(&self.database), &anchor.encode()).or_else(|error| {
            tracing::warn!(%error, "note where the database stands");
            forget_anchor(&self.database)
        })
    }

    /// Notes that the database is closed with an empty log.
    pub(crate) fn anchor_closed(&self) -> Result<()> {
        let Some(pages) = &self.pages else { return Ok(()) };
        if let Some(anchor) = pages.closing_anchor(self.tap.keep())? {
            durable::replace(&anchor_path(&self.database), &anchor.encode())?;
        }
        Ok(())
    }
}

/// Nothing is known of where a database stands any more.
pub(crate) fn forget_anchor(database: &Path) -> Result<()> {
    match std::fs::remove_file(anchor_path(database)) {
        Ok(()) => Ok(durable::sync_directory_of(database)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An anchor that is torn or of a newer version leads nowhere: no anchor.
fn read_anchor(database: &Path) -> Result<Option<Anchor>> {
    match std::fs::read(anchor_path(database)) {
        Ok(bytes) => Ok(Anchor::decode(&bytes).ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn anchor_path(database: &Path) -> PathBuf {
    with_suffix(database, "-anchor")
}
