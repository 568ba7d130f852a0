//! Finding out what a replica lacks by hashes: of ranges of pages first, then of the pages of those that
//! differ. Pages that change meanwhile are lacking anyway.

use mfpsync_storage::Result;
use mfpsync_storage::physical::{PageDigest, PageHash, PageNumber, PageSet, Pages};

use super::{Mode, Next, Question, Shipping, range};
use crate::stream::{RANGE_PAGES, RANGES, ToReplica};

impl Shipping {
    pub(super) fn compare(&mut self) {
        (self.base, self.lacking) = (None, PageSet::default());
        self.compared += 1;
        self.mode = Mode::Comparing { next: 1, question: Question::None };
    }

    pub(super) fn ask(&mut self, pages: &Pages) -> Next {
        let common = self.theirs.min(pages.count());
        match &mut self.mode {
            Mode::Comparing { next, question } if *next <= common => match question {
                Question::None => {
                    *question = Question::Ranges;
                    Next::Send(ToReplica::Compare { first: PageNumber(*next) })
                }
                Question::Ranges | Question::Each(_) => Next::Wait,
            },
            _ => {
                PageNumber::all(pages.count())
                    .skip_while(|page| page.0 <= common)
                    .for_each(|page| self.lacking.insert(page));
                self.mode = Mode::CatchingUp { next: PageNumber(1), begun: false };
                Next::Again
            }
        }
    }

    pub(super) fn ranges(&mut self, digests: &[PageDigest], pages: &Pages) -> Result<()> {
        let common = self.theirs.min(pages.count());
        let Mode::Comparing { next, question: question @ Question::Ranges } = &mut self.mode else {
            self.mode = Mode::Broken;
            return Ok(());
        };
        let mut differ = Vec::new();
        for (first, theirs) in
            (*next..).step_by(RANGE_PAGES as usize).zip(digests.iter().take(RANGES as usize))
        {
            let mut digest = PageDigest::EMPTY;
            for page in range(PageNumber(first), self.theirs) {
                if page.0 > common {
                    break;
                }
                digest.toggle(PageHash::of(page, &pages.page(page)?));
            }
            if first <= common && digest != *theirs {
                differ.push(PageNumber(first));
            }
        }
        if digests.len() < RANGES as usize && *next + RANGES * RANGE_PAGES <= common {
            self.mode = Mode::Broken;
        } else if differ.is_empty() {
            *question = Question::None;
            *next += RANGES * RANGE_PAGES;
        } else {
            self.ready.push_back(ToReplica::CompareEach { ranges: differ.clone() });
            *question = Question::Each(differ);
        }
        Ok(())
    }

    pub(super) fn each(&mut self, hashes: &[Vec<u64>], pages: &Pages) -> Result<()> {
        let Mode::Comparing { next, question: question @ Question::Each(_) } = &mut self.mode else {
            self.mode = Mode::Broken;
            return Ok(());
        };
        let Question::Each(ranges) = std::mem::replace(question, Question::None) else { return Ok(()) };
        *next += RANGES * RANGE_PAGES;
        for (at, first) in ranges.iter().enumerate() {
            let theirs = hashes.get(at).map(Vec::as_slice).unwrap_or_default();
            for (at, page) in range(*first, self.theirs.min(pages.count())).enumerate() {
                if theirs.get(at) != Some(&PageHash::of(page, &pages.page(page)?).short()) {
                    self.lacking.insert(page);
                }
            }
        }
        Ok(())
    }
}
