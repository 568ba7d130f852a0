//! The communication log on disk: one JSON object a line, appended. A later line with the same number
//! holds instead of the former.
//!
//! Nothing is synced when lines are appended: what the system has not written yet when the power fails
//! is lost, and a line torn then is passed over. Rewriting the file is all or nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use mfpsync_storage::model::DeviceId;
use serde::{Deserialize, Serialize};

use super::code::Code;
use super::ledger::Entry;

/// The file within the data directory.
pub const FILE_NAME: &str = "communication.log";
/// Twice the highest bound that can be set, and some: a longer file is cut there.
const MOST_BYTES: u64 = 40 << 20;

#[derive(Serialize, Deserialize)]
struct Line {
    number: u64,
    first: u64,
    last: u64,
    times: u64,
    code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    peer: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    counts: BTreeMap<String, u64>,
}

/// An entry as it is written.
#[must_use]
pub fn line(entry: &Entry) -> String {
    let line = Line {
        number: entry.number,
        first: entry.first,
        last: entry.last,
        times: entry.times,
        code: entry.code.as_str().to_owned(),
        peer: entry.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        address: entry.address.clone(),
        reason: entry.reason.clone(),
        counts: entry.counts.clone(),
    };
    // Numbers and texts always have a form.
    serde_json::to_string(&line).map(|line| line + "\n").unwrap_or_default()
}

/// None for what is torn, or of a release that knows more.
fn entry(line: &[u8]) -> Option<Entry> {
    let line: Line = serde_json::from_slice(line).ok()?;
    Some(Entry {
        number: line.number,
        first: line.first,
        last: line.last,
        times: line.times,
        code: Code::from_name(&line.code)?,
        peer: if line.peer.is_empty() { None } else { Some(DeviceId::from_hex(&line.peer)?) },
        address: line.address,
        reason: line.reason,
        counts: line.counts,
    })
}

/// The file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    bytes: u64,
    /// The last line has no end.
    torn: bool,
}

impl LogFile {
    /// The file in `directory`, taken for empty.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self { path: directory.join(FILE_NAME), bytes: 0, torn: false }
    }

    /// The file in `directory` and its entries, oldest first.
    ///
    /// # Errors
    /// It cannot be read; one that is not there is empty.
    pub fn open(directory: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let mut file = Self::at(directory);
        let mut content = Vec::new();
        match File::open(&file.path) {
            Ok(open) => open.take(MOST_BYTES).read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((file, Vec::new())),
            Err(error) => return Err(error),
        };
        file.bytes = content.len() as u64;
        file.torn = content.last().is_some_and(|last| *last != b'\n');
        let entries: BTreeMap<u64, Entry> = content
            .split(|byte| *byte == b'\n')
            .filter_map(entry)
            .map(|entry| (entry.number, entry))
            .collect();
        Ok((file, entries.into_values().collect()))
    }

    /// Adds lines.
    ///
    /// # Errors
    /// The storage's.
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut lines = String::from(if self.torn { "\n" } else { "" });
        entries.iter().for_each(|entry| lines += &line(entry));
        // Until the whole of it is there.
        self.torn = true;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(lines.as_bytes())?;
        self.torn = false;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    /// Writes the file anew with these entries only.
    ///
    /// # Errors
    /// The storage's; the file is as it was.
    pub fn replace(&mut self, entries: &[Entry]) -> io::Result<()> {
        let new = self.path.with_extension("log.new");
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
        let lines: String = entries.iter().map(line).collect();
        file.write_all(lines.as_bytes())?;
        // So that a power cut leaves the one or the other.
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        (self.bytes, self.torn) = (lines.len() as u64, false);
        Ok(())
    }

    /// Its length.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communication::ledger::{Bounds, Event, Ledger};

    fn recorded(codes: &[Code]) -> Vec<Entry> {
        let mut ledger = Ledger::new(Bounds::default(), Vec::new());
        for code in codes {
            ledger.record(Event::new(*code).peer(DeviceId([7; 16])).reason("silent").count("accepted", 2), 5);
        }
        ledger.due()
    }

    #[test]
    fn entries_come_back_and_a_later_line_holds() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, none) = LogFile::open(directory.path()).unwrap();
        assert!(none.is_empty());
        let mut entries = recorded(&[Code::Lost, Code::Refused]);
        file.append(&entries).unwrap();
        entries[0].times = 9;
        file.append(&entries[..1]).unwrap();
        assert_eq!(LogFile::open(directory.path()).unwrap().1, entries);
    }

    #[test]
    fn a_file_torn_anywhere_keeps_its_whole_lines_and_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let entries = recorded(&[Code::Lost, Code::Refused, Code::Joined]);
        let (whole, new) = entries.split_at(2);
        let text: String = whole.iter().map(line).collect();
        for cut in 0..=text.len() {
            fs::write(directory.path().join(FILE_NAME), &text[..cut]).unwrap();
            let (mut file, _) = LogFile::open(directory.path()).unwrap();
            file.append(new).unwrap();
            let back = LogFile::open(directory.path()).unwrap().1;
            assert_eq!(back.last(), new.last(), "cut at {cut}");
            assert!(back.len() > text[..cut].matches('\n').count(), "cut at {cut}");
        }
    }

    #[test]
    fn a_file_written_anew_holds_what_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let (mut file, _) = LogFile::open(directory.path()).unwrap();
        let entries = recorded(&[Code::Lost, Code::Refused]);
        file.append(&entries).unwrap();
        let before = file.bytes();
        file.replace(&entries[1..]).unwrap();
        assert!(file.bytes() < before);
        let (again, back) = LogFile::open(directory.path()).unwrap();
        assert_eq!((again.bytes(), back.as_slice()), (file.bytes(), &entries[1..]));
    }
}
