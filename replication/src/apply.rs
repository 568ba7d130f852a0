//! The replica's half: takes what the server sends into the copy, or says what does not fit.
//!
//! No I/O of its own but what [`Standby`] does. Nothing that comes makes the copy anything but what the
//! server had at some moment: each difference names the page it goes onto, each transaction the digest of
//! all pages after it, and one that does not lead there is not committed. I-11.

use mfpsync_storage::codec::DecodeError;
use mfpsync_storage::model::ContentHash;
use mfpsync_storage::physical::{PageDigest, PageHash, PageNumber, Position, Prover, Standby};
use mfpsync_storage::{Error, Result};

use crate::batch::{Before, Packed, Unpacked};
use crate::ship::range;
use crate::stream::{FromReplica, RANGE_PAGES, RANGES, Reached, ToReplica};

/// What a message asks of the replica besides an answer.
#[derive(Debug, PartialEq)]
pub enum Applied {
    /// Answer this.
    Answer(FromReplica),
    /// Nothing.
    Nothing,
    /// Prove the copy where it stands, and answer with [`FromReplica::Proven`].
    Prove {
        /// Names the question.
        proof: u64,
        /// Where it must stand.
        position: Position,
    },
    /// The server stands there.
    Head(Position),
    /// Take over.
    TakeOver,
}

/// What a proof of the copy comes to: its pages, SQLite's opinion, and its items, all at `position`. Takes
/// as long as reading the whole copy twice.
///
/// # Errors
/// What is wrong, in words for an engineer.
pub fn prove(prover: &Prover, position: &Position) -> std::result::Result<ContentHash, String> {
    let unreadable = |error: Error| format!("the copy cannot be read: {error}");
    if prover.digest().map_err(unreadable)? != position.digest {
        return Err("a page is not what was written".to_owned());
    }
    if let Some(found) = prover.check().map_err(unreadable)?.first() {
        return Err(format!("SQLite finds the copy damaged: {found}"));
    }
    let (head, hashes) =
        prover.read(|read| Ok((read.founded_head()?, read.content_hashes()?))).map_err(unreadable)?;
    if (head.group, head.epoch, head.sequence, head.chain)
        != (position.group, position.epoch, position.sequence, position.chain)
    {
        return Err("the copy is of another moment than its position".to_owned());
    }
    Ok(hashes.into_values().fold(ContentHash::EMPTY, ContentHash::and))
}

/// Takes what comes on one connection.
#[derive(Debug, Default)]
pub struct Applying {
    /// The number of the highest reign known: nothing is taken of an earlier one.
    floor: u64,
    attempt: u32,
    /// A transaction began and did not end.
    staging: bool,
    /// The last part taken.
    number: u64,
}

impl Applying {
    /// Takes nothing of a reign below this one. I-15.
    #[must_use]
    pub fn above(floor: u64) -> Self {
        Self { floor, ..Self::default() }
    }

    /// The first word on the connection.
    #[must_use]
    pub fn stands(copy: &Standby) -> FromReplica {
        FromReplica::Stands { position: copy.position(), pages: copy.pages() }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// What is malformed, and the device's: end the connection. The copy is as it was committed last.
    pub fn take(&mut self, copy: &mut Standby, message: ToReplica) -> Result<Applied> {
        match message {
            ToReplica::Compare { first } => Ok(Applied::Answer(FromReplica::Ranges(digests(copy, first)?))),
            ToReplica::CompareEach { ranges } => {
                let hashes = ranges.iter().take(RANGES as usize).map(|first| hashes(copy, *first));
                Ok(Applied::Answer(FromReplica::Each(hashes.collect::<Result<_>>()?)))
            }
            // The rest of a try in which something did not fit.
            ToReplica::Part { attempt, .. } if attempt < self.attempt => Ok(Applied::Nothing),
            ToReplica::Part { attempt, number, begins, beside, packed } => {
                self.attempt = attempt;
                self.part(copy, number, begins.then_some(beside), &packed)
            }
            ToReplica::Prove { proof, position } => Ok(Applied::Prove { proof, position }),
            ToReplica::Head(position) => Ok(Applied::Head(position)),
            ToReplica::TakeOver => Ok(Applied::TakeOver),
        }
    }

    fn part(
        &mut self,
        copy: &mut Standby,
        number: u64,
        begins: Option<bool>,
        packed: &[u8],
    ) -> Result<Applied> {
        if self.number != 0 && number != self.number + 1 {
            return Err(DecodeError::Invalid("a part is missing").into());
        }
        self.number = number;
        if let Some(beside) = begins {
            copy.begin(beside)?;
            self.staging = true;
        }
        if !self.staging {
            return Err(DecodeError::Invalid("a part without a beginning").into());
        }
        let at = copy.position();
        let part = Packed::parse(packed, at.as_ref())?;
        if let Some(before) = part.end.and_then(|end| end.from)
            && at.as_ref().map(Before::of) != Some(before)
        {
            return Ok(self.differs(Vec::new()));
        }
        match part.unpack(|page| copy.page(page))? {
            Unpacked::Pages(pages) => {
                pages.iter().try_for_each(|(page, content)| copy.stage(*page, content))?
            }
            Unpacked::Wrong(wrong) => return Ok(self.differs(wrong)),
        }
        let Some(end) = part.end else { return Ok(self.taken(Reached::Elsewhere(at))) };
        if end.to.epoch.number < self.floor {
            return Err(DecodeError::Invalid("what the server sends is of a reign that ended").into());
        }
        if at.is_some_and(|at| at.group == end.to.group && at.place() > end.to.place()) {
            return Err(DecodeError::Invalid("what the server sends is older than the copy").into());
        }
        self.staging = false;
        match copy.commit(&end.to) {
            Ok(()) => Ok(self.taken(Reached::End)),
            Err(Error::Diverged) => Ok(self.differs(Vec::new())),
            Err(error) => Err(error),
        }
    }

    fn taken(&self, reached: Reached) -> Applied {
        Applied::Answer(FromReplica::Taken { number: self.number, reached })
    }

    fn differs(&mut self, pages: Vec<PageNumber>) -> Applied {
        self.attempt += 1;
        (self.staging, self.number) = (false, 0);
        Applied::Answer(FromReplica::Differs { pages })
    }
}

fn digests(copy: &mut Standby, first: PageNumber) -> Result<Vec<PageDigest>> {
    let firsts = (first.0..=copy.pages()).step_by(RANGE_PAGES as usize).take(RANGES as usize);
    firsts
        .map(|first| {
            let mut digest = PageDigest::EMPTY;
            for page in range(PageNumber(first), copy.pages()) {
                digest.toggle(PageHash::of(page, &copy.page(page)?));
            }
            Ok(digest)
        })
        .collect()
}

fn hashes(copy: &mut Standby, first: PageNumber) -> Result<Vec<u64>> {
    range(first, copy.pages()).map(|page| Ok(PageHash::of(page, &copy.page(page)?).short())).collect()
}
