//! The other side: the whole of `mfpsync-restore`. It reads one request and the archive, gives up its rights
//! before the first byte of that, and answers once.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use mfpsync_storage::master::archived::{Archived, Contents};

use super::confine::confine;
use super::error::RestoreError;
use super::protocol::{Request, Task, answer};
use super::scratch::{archived, fresh};
use super::unpack::unpack;
use crate::archive::Key;
use crate::manifest::{Counts, Inventory};

/// Serves one request on standard input and output. Fails without an answer if nobody asked.
#[must_use]
pub fn main() -> ExitCode {
    let mut input = io::stdin().lock();
    let Ok((request, key)) = Request::read(&mut input) else { return ExitCode::FAILURE };
    let done = serve(&request, &key, input);
    let mut output = io::stdout().lock();
    let told = output.write_all(&answer(&done)).and_then(|()| output.flush());
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(request: &Request, key: &Key, archive: impl Read) -> Result<Inventory, RestoreError> {
    confine(&request.scratch, request.database.bytes)?;
    let path = archived(&request.scratch);
    unpack(request, key, archive, &path)?;
    // Whoever takes too long is stopped by a limit, or by whoever asked.
    let database = Archived::open(&path, || false)?;
    database.check()?;
    let contents = match request.task {
        Task::Prove => database.contents()?,
        Task::Restore => database.copy_to(&fresh(&request.scratch))?,
    };
    Ok(held(&contents))
}

fn held(contents: &Contents) -> Inventory {
    Inventory {
        at: contents.head.cursor(),
        root_key: contents.head.root_key,
        content: contents.content,
        counts: Counts::of(contents),
    }
}
