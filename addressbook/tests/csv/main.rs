//! The vendor's CSV through its two doors: real files, broken files, made-up entries.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod faults;
mod properties;
mod samples;
mod tolerance;
mod writing;

use mfpsync_addressbook::csv::{self, Book};
use mfpsync_addressbook::{Entry, Notice, Value};

const SAMPLES: [&str; 2] = ["address-list.csv", "one-touch.csv"];

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../tests/samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn sample_text(name: &str) -> String {
    String::from_utf8(sample(name)).unwrap()
}

/// A small file: header lines, an empty line, then the given rows.
fn file(rows: &str) -> String {
    format!(
        "# Canon AddressBook CSV version: 0x0002\n# CharSet: UTF-8\n# SubAddressBookName: \n# DB Version: 0x010a\n\n{rows}"
    )
}

fn read(text: impl AsRef<[u8]>) -> (Book, Vec<Notice>) {
    csv::read(text.as_ref()).unwrap()
}

/// Everything noticed, as shown.
fn notices(text: impl AsRef<[u8]>) -> Vec<String> {
    read(text).1.iter().map(ToString::to_string).collect()
}

/// Everything wrong, as shown.
fn problems(text: impl AsRef<[u8]>) -> Vec<String> {
    csv::read(text.as_ref()).unwrap_err().problems.iter().map(ToString::to_string).collect()
}

fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::Text((*text).to_owned()));
    Entry { id: id.to_owned(), fields: fields.iter().map(text).collect() }
}

fn group(id: &str, members: &[&str]) -> Entry {
    let mut group = entry(id, &[("class", "group")]);
    let members = members.iter().map(|id| (*id).to_owned()).collect();
    group.fields.insert("members".to_owned(), Value::Set(members));
    group
}
