//! The pages as of one commit, handed out in order and at leisure while further commits change them:
//! what a page was is put aside when it first changes, if its turn has not come.
//!
//! Costs room for pages that change before their turn, at most as much as the database has; in a file
//! without a name, so that it is gone with the process. The log is folded as ever.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::page::{PAGE_BYTES, Page, PageNumber};
use crate::error::{Error, Result};
use crate::open::with_suffix;

/// One moment, as long as somebody wants it.
#[derive(Debug)]
pub(crate) struct Moment {
    claim: Claim,
    /// Pages of the database at that moment.
    count: u32,
    /// The page whose turn it is.
    next: PageNumber,
    /// Where in the file a page is that changed before its turn.
    aside: HashMap<PageNumber, u32>,
    file: File,
    /// Why there are pages that could not be put aside.
    failed: Option<Error>,
}

/// What whoever wants a moment holds; the moment ends with it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Claim(Arc<()>);

impl Claim {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Moment {
    /// The moment at which the database at `path` has `count` pages.
    pub(crate) fn new(path: &Path, claim: Claim, count: u32) -> Result<Self> {
        let beside = with_suffix(path, "-aside");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        std::fs::remove_file(&beside)?;
        Ok(Self { claim, count, next: PageNumber(1), aside: HashMap::new(), file, failed: None })
    }

    /// Whether nobody wants it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.claim.is_dropped()
    }

    /// Whether it is the one of this claim.
    pub(crate) fn is_of(&self, claim: &Claim) -> bool {
        self.claim.is_same(claim)
    }

    /// Whether a page is to be put aside when it changes.
    pub(crate) fn wants(&self, page: PageNumber) -> bool {
        (self.next..=PageNumber(self.count)).contains(&page) && !self.aside.contains_key(&page)
    }

    /// Keeps a page as it was. If that cannot be, the moment is lost; the commit goes on.
    pub(crate) fn put_aside(&mut self, page: PageNumber, old: &Page) {
        if !self.wants(page) || self.failed.is_some() {
            return;
        }
        let slot = self.aside.len() as u32;
        match self.file.write_all_at(old, offset(slot)) {
            Ok(()) => drop(self.aside.insert(page, slot)),
            Err(error) => self.failed = Some(error.into()),
        }
    }

    /// The next pages, at most `pages` of them; nothing at the end. `present` reads a page as it is now.
    ///
    /// # Errors
    /// A page cannot be read, or could not be put aside.
    pub(crate) fn portion(
        &mut self,
        pages: u32,
        present: impl Fn(PageNumber) -> Result<Page>,
    ) -> Result<Vec<u8>> {
        if let Some(failed) = self.failed.take() {
            self.failed = Some(Error::Busy);
            return Err(failed);
        }
        let end = self.next.0.saturating_add(pages).min(self.count + 1);
        let mut portion = Vec::with_capacity((end - self.next.0) as usize * PAGE_BYTES);
        for page in (self.next.0..end).map(PageNumber) {
            let content = match self.aside.get(&page) {
                // It has no content, and its place in the file is empty.
                None if page == PageNumber::LOCK => [0; PAGE_BYTES],
                None => present(page)?,
                Some(slot) => {
                    let mut old = [0; PAGE_BYTES];
                    self.file.read_exact_at(&mut old, offset(*slot))?;
                    old
                }
            };
            portion.extend_from_slice(&content);
        }
        self.next = PageNumber(end);
        Ok(portion)
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * PAGE_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_each_page_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let claim = Claim::default();
        let mut moment = Moment::new(&directory.path().join("a.db"), claim.clone(), 4).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");

        moment.put_aside(PageNumber(3), &[3; PAGE_BYTES]);
        moment.put_aside(PageNumber(3), &[4; PAGE_BYTES]);
        moment.put_aside(PageNumber(5), &[5; PAGE_BYTES]);
        let present = |page: PageNumber| Ok([page.0 as u8 + 100; PAGE_BYTES]);
        let firsts = |portion: Vec<u8>| portion.chunks(PAGE_BYTES).map(|page| page[0]).collect::<Vec<_>>();
        assert_eq!(firsts(moment.portion(2, present).unwrap()), [101, 102]);
        // Its turn is over.
        assert!(!moment.wants(PageNumber(2)) && moment.wants(PageNumber(4)));
        assert_eq!(firsts(moment.portion(9, present).unwrap()), [3, 104]);
        assert!(moment.portion(9, present).unwrap().is_empty());

        assert!(moment.is_of(&claim) && !moment.is_over());
        drop(claim);
        assert!(moment.is_over());
    }
}
