//! An address book into the group: read the whole file, plan, then write batch by batch.
//!
//! Nothing is written before the whole file is sound. A batch is stored wholly or not at all; when one
//! fails the earlier ones stay, which the failure says, and the same import again does the rest.

use indicatif::ProgressBar;
use mfpsync_addressbook::{Book, Format, Notice, ReadError};

use super::plan::{Plan, is_entry};
use super::{Target, layout};
use crate::command::item;
use crate::exit::Failure;
use crate::sockets::Sockets;

/// Problems shown before the rest is only counted.
const SHOWN_PROBLEMS: usize = 20;

/// A sound file, and what storing it would do.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) format: Format,
    pub(crate) plan: Plan,
    pub(crate) notices: Vec<Notice>,
}

/// Reads a file's bytes, of the given format or the one they tell, and compares them with what is there.
///
/// # Errors
/// `Failure::BadInput` naming line and column, or an unreachable daemon. Nothing is stored.
pub(crate) async fn prepare(
    sockets: &Sockets,
    target: &Target,
    bytes: &[u8],
    format: Option<Format>,
) -> Result<Prepared, Failure> {
    let (book, notices) = read(bytes, format)?;
    let present = item::list(sockets, &target.scope, &target.kind).await?;
    let looks = item::list(sockets, &target.scope, layout::KIND).await?;
    Ok(Prepared { format: book.format(), plan: Plan::new(&book, target, &present, &looks), notices })
}

fn read(bytes: &[u8], format: Option<Format>) -> Result<(Book, Vec<Notice>), Failure> {
    let read = format.map_or_else(|| mfpsync_addressbook::read(bytes), |format| format.read(bytes));
    read.map_err(|error| Failure::BadInput(problems(&error)))
}

fn problems(error: &ReadError) -> String {
    let mut lines: Vec<String> =
        error.problems.iter().take(SHOWN_PROBLEMS).map(ToString::to_string).collect();
    let more = error.count().saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    format!("nothing was stored, the file cannot be used:\n  {}", lines.join("\n  "))
}

/// Writes a plan; `progress` moves by one for each entry stored.
///
/// # Errors
/// `Failure::Partial` says how much is stored and what went wrong; a refusal of the first batch stands alone.
///
/// # Cancel safety
/// Dropped between batches nothing is lost; dropped within one, that batch is stored or not.
pub(crate) async fn store(
    sockets: &Sockets,
    plan: Plan,
    actor: &str,
    progress: &ProgressBar,
) -> Result<u64, Failure> {
    let total = plan.entries();
    let mut stored = 0;
    for batch in plan.into_batches() {
        let entries = batch.iter().filter(|edit| is_entry(edit)).count() as u64;
        if let Err(failure) = item::write(sockets, batch, actor).await {
            return Err(Failure::stopped_at(stored, total, failure));
        }
        stored += entries;
        progress.inc(entries);
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn a_bad_file_is_named_by_line_and_column() {
        for format in [None, Some(Format::Csv), Some(Format::Vcard)] {
            let failure = read(b"not an address book\n", format).unwrap_err();
            assert_eq!(failure.exit(), Exit::BadInput);
            let text = failure.to_string();
            assert!(text.starts_with("nothing was stored") && text.contains("line 1"), "{text}");
        }
    }
}
