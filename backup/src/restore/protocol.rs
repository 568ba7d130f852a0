//! What the daemon and `mfpsync-restore` say to each other: a length of four bytes and a record each, the
//! request followed by the archive up to the end of input. Both are of one build; the version says so.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};
use zeroize::Zeroizing;

use super::error::RestoreError;
use crate::archive::Key;
use crate::manifest::{File, Inventory};

const REQUEST: [u8; 4] = *b"MFPJ";
const ANSWER: [u8; 4] = *b"MFPN";
const VERSION: u8 = 1;

/// Longest record: a path and a passphrase, or an answer.
pub(super) const RECORD_BYTES: u32 = 64 << 10;

/// What is to be done with an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Task {
    /// Look at it.
    Prove,
    /// Make a database of it.
    Restore,
}

/// What the helper is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) task: Task,
    /// The database inside.
    pub(super) database: File,
    /// The archive.
    pub(super) archive: File,
    /// Where it may write.
    pub(super) scratch: PathBuf,
}

impl Request {
    /// The frame, with what opens the archive.
    pub(super) fn encode(&self, key: &Key) -> Zeroizing<Vec<u8>> {
        let mut to = Encoder::record(REQUEST, VERSION);
        to.fixed(&[u8::from(self.task == Task::Restore)]);
        self.database.encode(&mut to);
        self.archive.encode(&mut to);
        to.bytes(self.scratch.as_os_str().as_bytes());
        key.encode(&mut to);
        let record = Zeroizing::new(to.finish());
        Zeroizing::new(framed(&record))
    }

    /// Reads the frame.
    pub(super) fn read(from: &mut impl Read) -> io::Result<(Self, Key)> {
        let record = Zeroizing::new(read_frame(from)?);
        Self::decode(&record).map_err(io::Error::other)
    }

    fn decode(record: &[u8]) -> Result<(Self, Key), DecodeError> {
        let mut from = Decoder::record(record, REQUEST, VERSION, "restore request")?;
        let task = if from.flag()? { Task::Restore } else { Task::Prove };
        let (database, archive) = (File::decode(&mut from)?, File::decode(&mut from)?);
        let scratch = PathBuf::from(OsStr::from_bytes(from.bytes()?));
        let key = Key::decode(&mut from)?;
        from.finish()?;
        Ok((Self { task, database, archive, scratch }, key))
    }
}

/// The helper's answer as a frame.
pub(super) fn answer(answer: &Result<Inventory, RestoreError>) -> Vec<u8> {
    let mut to = Encoder::record(ANSWER, VERSION);
    match answer {
        Ok(held) => held.encode(to.fixed(&[0])),
        Err(error) => error.encode(&mut to),
    }
    framed(to.as_bytes())
}

/// Parses an answer.
pub(super) fn decode_answer(record: &[u8]) -> Result<Inventory, RestoreError> {
    let mut from = Decoder::record(record, ANSWER, VERSION, "restore answer")?;
    let rest = from.clone();
    if from.byte()? == 0 {
        let held = Inventory::decode(&mut from)?;
        from.finish()?;
        return Ok(held);
    }
    from = rest;
    let error = RestoreError::decode(&mut from)?;
    from.finish()?;
    Err(error)
}

/// Reads a length and that many bytes.
pub(super) fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > RECORD_BYTES {
        return Err(io::Error::other("record is too long"));
    }
    let mut record = vec![0; length as usize];
    from.read_exact(&mut record)?;
    Ok(record)
}

fn framed(record: &[u8]) -> Vec<u8> {
    // Far below 4 GiB.
    let length = (record.len() as u32).to_be_bytes();
    [&length, record].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(scratch: &str) -> Request {
        let file = |bytes| File { bytes, sha256: [bytes as u8; 32] };
        Request { task: Task::Restore, database: file(8192), archive: file(77), scratch: scratch.into() }
    }

    #[test]
    fn a_request_arrives_with_its_key_and_before_the_archive() {
        let key = Key::passphrase("a long passphrase").unwrap();
        let sent = [request("/var/lib/a b").encode(&key).as_slice(), b"archive"].concat();
        let mut input = sent.as_slice();
        let (read, again) = Request::read(&mut input).unwrap();
        assert_eq!((read.clone(), input), (request("/var/lib/a b"), &b"archive"[..]));
        assert_eq!(read.encode(&again), request("/var/lib/a b").encode(&key));
    }

    #[test]
    fn every_reason_arrives_as_it_was_said() {
        let reasons = [
            RestoreError::WrongKey,
            RestoreError::ExcessiveWork,
            RestoreError::NotAnArchive,
            RestoreError::Truncated,
            RestoreError::Tampered,
            RestoreError::TooLarge,
            RestoreError::Foreign,
            RestoreError::NewerSchema { found: 9, known: 1 },
            RestoreError::AlteredSchema,
            RestoreError::Damaged("page 7".to_owned()),
            RestoreError::Row("items".to_owned()),
            RestoreError::Differs,
            RestoreError::Full,
            RestoreError::Unconfined("seccomp".to_owned()),
            RestoreError::Storage("busy".to_owned()),
        ];
        for reason in reasons {
            let said = format!("{reason:?}");
            let frame = answer(&Err(reason));
            let record = read_frame(&mut frame.as_slice()).unwrap();
            assert_eq!(format!("{:?}", decode_answer(&record).unwrap_err()), said);
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_one_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for record in [bytes.clone(), [&b"MFPN\x01"[..], &bytes].concat()] {
                if let Ok(held) = decode_answer(&record) {
                    prop_assert_eq!(&answer(&Ok(held))[4..], record);
                }
            }
        }
    }
}
