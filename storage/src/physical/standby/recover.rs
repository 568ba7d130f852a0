//! What becomes of a copy whose `standby.pos` is damaged: which file it is and what that holds is found out
//! anew. In which run of transactions it stands is known only if its log says so; else it is compared with
//! the server's before it is used for anything.

use std::path::Path;

use super::log::Log;
use super::place::{self, Place};
use super::{lock, pages_of, read_page, scan};
use crate::durable;
use crate::error::{Error, Result};
use crate::master::Master;
use crate::open::{self, with_suffix};
use crate::physical::held;
use crate::physical::position::{LogId, Position};
use crate::store::Database;

/// Names no run of transactions.
const UNKNOWN: LogId = LogId([0; 16]);

/// The place of the copy in `directory`, written anew; none if what is there is good for a comparison only.
pub(super) fn place(directory: &Path) -> Result<Option<Place>> {
    tracing::warn!("standby.pos is damaged; the copy is compared with the server's");
    let generations = generations(directory)?;
    // One that is not whole yet has no log.
    let whole = generations.iter().rev().find(|generation| log_of(directory, **generation).exists());
    if let Some(generation) = whole.copied() {
        match stands(&place::file(directory, generation)) {
            Ok(position) => {
                let place = Place { generation, position };
                place.write(directory)?;
                return Ok(Some(place));
            }
            Err(error @ (Error::Busy | Error::Io(_) | Error::File(_))) => return Err(error),
            Err(error) => tracing::warn!(%error, "read what the copy holds"),
        }
    }
    if let Some(generation) = whole.or(generations.last()).copied() {
        begin_with(directory, generation)?;
    }
    Place::forget(directory)?;
    Ok(None)
}

/// Where a copy stands, by itself.
fn stands(path: &Path) -> Result<Position> {
    let main = held::open(path)?;
    lock(&main)?;
    if let (_, Some(position)) = Log::open(path)? {
        return Ok(position);
    }
    let head = Master::read(&open::copy(path)?).founded_head()?;
    let pages = pages_of(&main);
    Ok(Position {
        group: head.group,
        log: UNKNOWN,
        transaction: 0,
        pages,
        digest: scan(pages, |page| read_page(&main, page), &|| false)?,
        epoch: head.epoch,
        sequence: head.sequence,
        chain: head.chain,
    })
}

/// Makes a file the beginning of a first copy. Its log goes first: it is not that of what comes into it.
fn begin_with(directory: &Path, generation: u64) -> Result<()> {
    let (from, to) = (place::file(directory, generation), place::file(directory, 1));
    place::remove_log(&from)?;
    if from == to {
        return Ok(());
    }
    place::remove(&to)?;
    Ok(durable::rename(&from, &to)?)
}

fn generations(directory: &Path) -> Result<Vec<u64>> {
    let names: Vec<_> = std::fs::read_dir(directory)?.collect::<std::io::Result<_>>()?;
    let databases = names.iter().map(std::fs::DirEntry::path);
    let databases = databases.filter(|path| path.extension().is_some_and(|extension| extension == "db"));
    let mut generations: Vec<u64> = databases.filter_map(|path| place::generation(&path)).collect();
    generations.sort_unstable();
    Ok(generations)
}

fn log_of(directory: &Path, generation: u64) -> std::path::PathBuf {
    with_suffix(&place::file(directory, generation), "-wal")
}
