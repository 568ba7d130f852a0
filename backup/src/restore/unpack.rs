//! From sealed bytes to the archived database as a file, within what the manifest says.

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zstd::stream::read::Decoder;

use super::error::RestoreError;
use super::protocol::Request;
use crate::archive::{Digested, Key};

/// Bytes that are handed on at once.
const CHUNK: usize = 64 << 10;
/// Largest window of compressed data that is opened, as a binary logarithm; archives are made with 21.
const WINDOW_LOG: u32 = 23;

/// Writes the database inside `archive` to `path`. The archive is read to its end whatever is wrong with it,
/// so that what is said of it is said of the whole: changed bytes are not called a wrong passphrase.
pub(super) fn unpack(
    request: &Request,
    key: &Key,
    archive: impl Read,
    path: &Path,
) -> Result<(), RestoreError> {
    let most = request.archive.bytes.saturating_add(1);
    let mut archive = BufReader::with_capacity(CHUNK, Digested::new(archive.take(most)));
    let opened = open(request, key, &mut archive, path);
    io::copy(&mut archive, &mut io::sink()).map_err(RestoreError::Source)?;
    let (found, _) = archive.into_inner().finish();
    if found.bytes < request.archive.bytes {
        return Err(RestoreError::Truncated);
    }
    if found != request.archive {
        return Err(RestoreError::Tampered);
    }
    opened
}

fn open(request: &Request, key: &Key, archive: impl BufRead, path: &Path) -> Result<(), RestoreError> {
    let mut plain = Decoder::new(key.open(archive)?).map_err(malformed)?;
    plain.window_log_max(WINDOW_LOG).map_err(malformed)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut to = Digested::new(file.map_err(unwritten)?);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = match plain.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.map_err(malformed)?,
        };
        if read == 0 {
            break;
        }
        if to.passed() + read as u64 > request.database.bytes {
            return Err(RestoreError::TooLarge);
        }
        to.write_all(&chunk[..read]).map_err(unwritten)?;
    }
    let (found, _) = to.finish();
    if found == request.database { Ok(()) } else { Err(RestoreError::Differs) }
}

fn malformed(error: io::Error) -> RestoreError {
    RestoreError::Damaged(error.to_string())
}

fn unwritten(error: io::Error) -> RestoreError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => RestoreError::Full,
        _ => RestoreError::Storage(error.to_string()),
    }
}
