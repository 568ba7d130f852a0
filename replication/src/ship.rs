//! The server's half of feeding a replica: which pages it lacks, and what to send next.
//!
//! One `Shipping` for a replica, owned by whoever hears of the database's commits. No I/O of its own:
//! pages are read where it is asked for the next message. Whatever happens, what it remembers is bounded:
//! a bit for each page that the replica lacks, up to 1,024 pages as they were when it was sent
//! something last, and two transactions on their way. **Source**: ADR 24.

mod compare;

use std::collections::{BTreeMap, VecDeque};

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use mfpsync_storage::model::{Chain, ContentHash, Epoch, GroupId, Sequence};
use mfpsync_storage::physical::{Changed, Page, PageNumber, PageSet, Pages, Position};
use mfpsync_storage::{Error, Result};

use crate::batch::{Before, Body, End, PART_PAGES, Part};
use crate::stream::{FromReplica, RANGE_PAGES, Reached, ToReplica};

/// Changed pages that travel as differences; more of them travel whole.
const LIVE_PAGES: usize = 1024;
/// Transactions on their way before others wait and are merged.
const FLIGHT: usize = 2;
/// Pages taken into the digest at once.
const HASH_PAGES: u32 = 256;
/// So often something else is tried when a copy does not become what it should be.
const LAST_TRY: u32 = 4;
/// Catching up ends when no more than so many pages are lacking: they are sent at once.
const LAST_PAGES: u32 = 1024;

/// What the server's database holds, besides pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logical {
    /// Whose data.
    pub group: GroupId,
    /// Whose reign.
    pub epoch: Epoch,
    /// The last accepted operation.
    pub sequence: Sequence,
    /// The running hash there.
    pub chain: Chain,
}

/// What to do next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// Send this, and ask again.
    Send(ToReplica),
    /// There is more to do here; others may go first.
    Again,
    /// Nothing, until something changes or is heard.
    Wait,
    /// End the connection: what was agreed on it no longer holds.
    Close,
    /// End the connection: the copy holds more of this history than the database.
    Ahead,
}

/// What a replica said of a proof.
#[derive(Debug, Clone, PartialEq)]
pub struct Proven {
    /// Which.
    pub proof: u64,
    /// What all items in the copy hash to, or what is wrong.
    pub content: std::result::Result<ContentHash, String>,
}

/// A part on its way.
#[derive(Debug)]
struct Sent {
    number: u64,
    /// Where its transaction leads, if it ends one.
    to: Option<Position>,
    pages: Vec<PageNumber>,
}

#[derive(Debug)]
enum Mode {
    /// Nobody is there.
    Away,
    /// What was agreed no longer holds.
    Broken,
    /// The copy is ahead: nothing is sent, or the last that knows better would be lost.
    Ahead,
    /// Its pages are compared with ours, from `next` on.
    Comparing { next: u32, question: Question },
    /// It gets the pages it lacks, whole, in rising order and over again.
    CatchingUp { next: PageNumber, begun: bool },
    /// It has all up to `sent`, or that is on its way; pages changed since, as they were there.
    Live { sent: Position, pending: BTreeMap<PageNumber, Option<Box<Page>>> },
}

/// What a comparison waits for.
#[derive(Debug)]
enum Question {
    None,
    Ranges,
    Each(Vec<PageNumber>),
}

/// Feeds one replica.
#[derive(Debug)]
pub struct Shipping {
    mode: Mode,
    /// What it lacks, besides what is pending, staged or on its way.
    lacking: PageSet,
    /// Where it stood on stable storage when it lacked just that; none if that is not known.
    base: Option<Position>,
    /// Sent in a transaction that did not end yet.
    staged: PageSet,
    flight: VecDeque<Sent>,
    /// Messages that wait to be sent.
    ready: VecDeque<ToReplica>,
    /// None before the database was looked at.
    logical: Option<Logical>,
    /// Pages it has.
    theirs: u32,
    number: u64,
    attempt: u32,
    /// Comparisons since it last committed anything.
    compared: u32,
    /// It is to make a copy beside the one it has, which is no good.
    beside: bool,
}

impl Default for Shipping {
    fn default() -> Self {
        Self {
            mode: Mode::Away,
            lacking: PageSet::default(),
            base: None,
            staged: PageSet::default(),
            flight: VecDeque::new(),
            ready: VecDeque::new(),
            logical: None,
            theirs: 0,
            number: 0,
            attempt: 0,
            compared: 0,
            beside: false,
        }
    }
}

impl Shipping {
    /// Where the copy stands on stable storage, as far as is known.
    #[must_use]
    pub fn durable(&self) -> Option<&Position> {
        self.base.as_ref()
    }

    /// Whether it gets each commit as it happens.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.mode, Mode::Live { .. })
    }

    /// How many pages it lacks, besides those on their way.
    #[must_use]
    pub fn lacks(&self) -> u32 {
        match &self.mode {
            Mode::Live { pending, .. } => pending.len() as u32,
            Mode::Away | Mode::Broken | Mode::Ahead | Mode::Comparing { .. } | Mode::CatchingUp { .. } => {
                self.lacking.len()
            }
        }
    }

    /// The run of transactions begins, or goes on with what [`Shipping::keep`] gave and all pages that
    /// [`Shipping::changed`] was told of since.
    pub fn begin(&mut self, kept: Option<&[u8]>, logical: Option<Logical>) {
        self.disconnected();
        match kept.map(decode_kept) {
            Some(Ok((base, lacking))) => {
                self.base = Some(base);
                self.lacking.extend(&lacking);
            }
            None | Some(Err(_)) => {
                self.base = None;
                self.lacking = PageSet::default();
            }
        }
        self.logical = logical;
        self.mode = Mode::Broken;
    }

    /// What a later [`Shipping::begin`] needs; empty if nothing is known of the replica.
    #[must_use]
    pub fn keep(&self) -> Vec<u8> {
        let Some(base) = &self.base else { return Vec::new() };
        let mut to = Encoder::new();
        to.bytes(&base.encode());
        self.all_lacking().encode(&mut to);
        to.finish()
    }

    /// A transaction changes a page.
    pub fn changed(&mut self, changed: &Changed<'_>) {
        match &mut self.mode {
            Mode::Live { pending, .. } if pending.contains_key(&changed.page) => {}
            Mode::Live { pending, .. } if pending.len() < LIVE_PAGES => {
                pending.insert(changed.page, changed.old.map(|old| Box::new(*old)));
            }
            Mode::Live { pending, .. } => {
                pending.keys().for_each(|page| self.lacking.insert(*page));
                self.lacking.insert(changed.page);
                self.mode = Mode::CatchingUp { next: PageNumber(1), begun: false };
            }
            Mode::Away | Mode::Broken | Mode::Ahead | Mode::Comparing { .. } | Mode::CatchingUp { .. } => {
                self.lacking.insert(changed.page);
            }
        }
    }

    /// What was changed is committed.
    pub fn committed(&mut self, logical: Option<Logical>) {
        self.logical = logical;
    }

    /// The connection ended. What was on its way may have arrived or not.
    pub fn disconnected(&mut self) {
        self.lacking = self.all_lacking();
        self.staged = PageSet::default();
        self.flight.clear();
        self.ready.clear();
        self.mode = Mode::Away;
    }

    /// The replica said something; what it said of a proof.
    ///
    /// # Errors
    /// Pages cannot be read.
    pub fn heard(&mut self, message: FromReplica, pages: &Pages) -> Result<Option<Proven>> {
        match message {
            FromReplica::Stands { position, pages: theirs } => self.stands(position, theirs, pages),
            FromReplica::Ranges(digests) => self.ranges(&digests, pages)?,
            FromReplica::Each(hashes) => self.each(&hashes, pages)?,
            FromReplica::Taken { number, reached } => self.taken(number, reached, pages),
            FromReplica::Differs { pages: wrong } => self.differs(&wrong, pages),
            FromReplica::Proven { proof, content } => return Ok(Some(Proven { proof, content })),
        }
        Ok(None)
    }

    /// What to send now.
    ///
    /// # Errors
    /// Pages cannot be read.
    pub fn next(&mut self, pages: &mut Pages) -> Result<Next> {
        if let Some(message) = self.ready.pop_front() {
            return Ok(Next::Send(message));
        }
        match &self.mode {
            Mode::Away => Ok(Next::Wait),
            Mode::Broken => Ok(Next::Close),
            Mode::Ahead => Ok(Next::Ahead),
            Mode::Comparing { .. } => Ok(self.ask(pages)),
            Mode::CatchingUp { .. } => self.catch_up(pages),
            Mode::Live { sent, .. } if sent.transaction == pages.transaction() => Ok(Next::Wait),
            Mode::Live { .. } if self.flight.len() >= FLIGHT => Ok(Next::Wait),
            Mode::Live { .. } => self.ship(pages),
        }
    }

    /// Asks the replica to prove its copy where the database stands now; none if it does not get that
    /// far before it hears the question.
    pub fn prove(&mut self, proof: u64, pages: &Pages) -> Option<Position> {
        let Mode::Live { sent, .. } = &self.mode else { return None };
        let position = *sent;
        (position.transaction == pages.transaction()).then(|| {
            self.ready.push_back(ToReplica::Prove { proof, position });
            position
        })
    }

    /// Where the database stands; none before all its pages are in the digest.
    #[must_use]
    pub fn position(&self, pages: &Pages) -> Option<Position> {
        let Logical { group, epoch, sequence, chain } = self.logical?;
        let (log, transaction) = (pages.log(), pages.transaction());
        Some(Position {
            group,
            log,
            transaction,
            pages: pages.count(),
            digest: pages.digest()?,
            epoch,
            sequence,
            chain,
        })
    }

    fn all_lacking(&self) -> PageSet {
        let mut all = self.lacking.clone();
        all.extend(&self.staged);
        self.flight.iter().flat_map(|sent| &sent.pages).for_each(|page| all.insert(*page));
        if let Mode::Live { pending, .. } = &self.mode {
            pending.keys().for_each(|page| all.insert(*page));
        }
        all
    }

    fn stands(&mut self, position: Option<Position>, theirs: u32, pages: &Pages) {
        self.disconnected();
        (self.attempt, self.theirs) = (0, theirs);
        if position.is_some_and(|position| self.is_ahead(&position)) {
            self.mode = Mode::Ahead;
            return;
        }
        let known = position.filter(|position| self.is_ours(position, pages));
        match known {
            Some(position) => {
                self.base = Some(position);
                self.mode = if self.position(pages) == known {
                    self.lacking = PageSet::default();
                    Mode::Live { sent: position, pending: BTreeMap::new() }
                } else {
                    Mode::CatchingUp { next: PageNumber(1), begun: false }
                };
            }
            None if theirs > 0 => self.compare(),
            None => self.send_all(pages),
        }
    }

    /// Whether the copy holds changes of the group that the database does not, or others in their place: its disk
    /// was put back.
    fn is_ahead(&self, position: &Position) -> bool {
        self.logical.is_some_and(|logical| {
            let (theirs, ours) = (position.place(), (logical.epoch.number, logical.sequence));
            position.group == logical.group
                && (theirs > ours
                    || theirs == ours && (position.epoch, position.chain) != (logical.epoch, logical.chain))
        })
    }

    /// Whether the copy is of our run of transactions, and we know what it lacks.
    fn is_ours(&self, position: &Position, pages: &Pages) -> bool {
        let Some(base) = &self.base else { return false };
        let of_the_run = position.log == base.log && position.log == pages.log();
        // Between the two its digest is not known here: it shows when it has caught up.
        of_the_run
            && (*position == *base
                || (base.transaction < position.transaction && position.transaction <= pages.transaction()))
    }

    fn send_all(&mut self, pages: &Pages) {
        (self.base, self.lacking) = (None, PageSet::all(pages.count()));
        self.mode = Mode::CatchingUp { next: PageNumber(1), begun: false };
    }

    fn taken(&mut self, number: u64, reached: Reached, pages: &Pages) {
        let position = match reached {
            Reached::End => self.flight.iter().find(|sent| sent.number == number).and_then(|sent| sent.to),
            Reached::Elsewhere(position) => position,
        };
        while let Some(sent) = self.flight.front().filter(|sent| sent.number <= number) {
            if sent.to.is_some() {
                self.staged = PageSet::default();
                (self.compared, self.beside) = (0, false);
            }
            self.flight.pop_front();
        }
        if let Some(position) = position.filter(|position| position.log == pages.log()) {
            (self.base, self.theirs) = (Some(position), position.pages);
        }
    }

    fn differs(&mut self, wrong: &[PageNumber], pages: &Pages) {
        let attempt = self.attempt;
        self.disconnected();
        self.attempt = attempt + 1;
        wrong.iter().filter(|page| page.0 <= pages.count()).for_each(|page| self.lacking.insert(*page));
        match (wrong.is_empty(), self.compared) {
            (false, _) => self.mode = Mode::CatchingUp { next: PageNumber(1), begun: false },
            (true, 0) => self.compare(),
            // Whoever comes back after a pause may be well by then.
            (true, LAST_TRY..) => self.mode = Mode::Broken,
            (true, _) => {
                self.compared += 1;
                self.beside = true;
                self.send_all(pages);
            }
        }
    }

    fn catch_up(&mut self, pages: &mut Pages) -> Result<Next> {
        if !pages.hash_on(HASH_PAGES)? {
            return Ok(Next::Again);
        }
        if self.flight.len() >= FLIGHT {
            return Ok(Next::Wait);
        }
        let Mode::CatchingUp { next, begun } = self.mode else { return Ok(Next::Wait) };
        if self.lacking.len() <= LAST_PAGES {
            return self.catch_up_last(begun, pages);
        }
        let (mut part, mut next) = (Part::default(), next);
        while part.pages.len() < PART_PAGES {
            let Some(page) = self.lacking.take_from(next) else { break };
            next = PageNumber(page.0 + 1);
            if page.0 <= pages.count() {
                self.staged.insert(page);
                part.pages.push((page, Body::Whole(Box::new(pages.page(page)?))));
            }
        }
        let wrapped = part.pages.len() < PART_PAGES;
        self.mode = Mode::CatchingUp { next: if wrapped { PageNumber(1) } else { next }, begun: true };
        let message = self.part(part, !begun, None)?;
        Ok(Next::Send(message))
    }

    /// Sends all that is still lacking as it is now, and ends the transaction.
    fn catch_up_last(&mut self, begun: bool, pages: &Pages) -> Result<Next> {
        let Some(to) = self.position(pages) else { return Ok(Next::Wait) };
        let mut bodies = Vec::new();
        while let Some(page) = self.lacking.take_from(PageNumber(1)) {
            if page.0 <= to.pages {
                self.staged.insert(page);
                bodies.push((page, Body::Whole(Box::new(pages.page(page)?))));
            }
        }
        self.transaction(bodies, !begun, End { from: None, to }, None)
    }

    /// Sends what changed since the last time, as one transaction.
    fn ship(&mut self, pages: &Pages) -> Result<Next> {
        let Some(to) = self.position(pages) else { return Ok(Next::Wait) };
        let Mode::Live { sent, pending } = &mut self.mode else { return Ok(Next::Wait) };
        let (sent, pending) = (*sent, std::mem::take(pending));
        let mut bodies = Vec::with_capacity(pending.len());
        for (page, old) in pending.into_iter().filter(|(page, _)| page.0 <= to.pages) {
            let new = pages.page(page)?;
            match old {
                Some(old) if *old == new => {}
                Some(old) => bodies.push((page, Body::Changed { old: Box::new(*old), new: Box::new(new) })),
                None => bodies.push((page, Body::Whole(Box::new(new)))),
            }
        }
        self.transaction(bodies, true, End { from: Some(Before::of(&sent)), to }, Some(&sent))
    }

    fn transaction(
        &mut self,
        mut bodies: Vec<(PageNumber, Body)>,
        begins: bool,
        end: End,
        base: Option<&Position>,
    ) -> Result<Next> {
        let mut begins = begins;
        let numbers = bodies.iter().map(|(page, _)| *page).collect();
        while bodies.len() > PART_PAGES {
            let rest = bodies.split_off(PART_PAGES);
            let part = Part { pages: std::mem::replace(&mut bodies, rest), end: None };
            let message = self.part(part, begins, None)?;
            // Its transaction counts as one on its way.
            self.flight.pop_back();
            self.ready.push_back(message);
            begins = false;
        }
        let to = end.to;
        let message = self.part(Part { pages: bodies, end: Some(end) }, begins, base)?;
        if let Some(last) = self.flight.back_mut() {
            last.pages = numbers;
        }
        self.mode = Mode::Live { sent: to, pending: BTreeMap::new() };
        self.ready.push_back(message);
        Ok(Next::Again)
    }

    fn part(&mut self, part: Part, begins: bool, base: Option<&Position>) -> Result<ToReplica> {
        let packed = part.pack(base).map_err(Error::from)?;
        self.number += 1;
        let to = part.end.map(|end| end.to);
        let pages = part.pages.into_iter().map(|(page, _)| page).collect();
        self.flight.push_back(Sent { number: self.number, to, pages });
        Ok(ToReplica::Part {
            attempt: self.attempt,
            number: self.number,
            begins,
            beside: self.beside,
            packed,
        })
    }
}

/// The pages of the range that begins at `first`, in a database of `count` pages.
pub(crate) fn range(first: PageNumber, count: u32) -> impl Iterator<Item = PageNumber> {
    let last = first.0.saturating_add(RANGE_PAGES - 1).min(count);
    (first.0..=last).map(PageNumber).filter(|page| *page != PageNumber::LOCK)
}

fn decode_kept(bytes: &[u8]) -> std::result::Result<(Position, PageSet), DecodeError> {
    let mut from = Decoder::new(bytes);
    let base = Position::decode(from.bytes()?)?;
    let lacking = PageSet::decode(&mut from)?;
    from.finish()?;
    Ok((base, lacking))
}

#[cfg(test)]
mod tests;
