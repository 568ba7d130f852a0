//! What holds for any entries and any bytes.

use mfpsync_addressbook::csv::{self, Header, LineEnd, Version, WriteOptions};
use mfpsync_addressbook::{Entry, Value};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{SAMPLES, entry, read, sample};

const TEXT_FIELDS: [&str; 12] = [
    "name",
    "reading",
    "short_name",
    "mail",
    "number",
    "host",
    "path",
    "protocol",
    "username",
    "csv.sub",
    "csv.Neu & alt",
    "csv.色",
];

/// Whatever an editor or a person may have put into a cell.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c,\"\r\n#; ']{1,8}", "[あ-ん漢字ー　,\"]{1,8}", "\\PC{1,12}"]
}

fn class() -> impl Strategy<Value = String> {
    prop_oneof![select(vec!["email", "fax", "ifax", "folder", "ipfax"]).prop_map(str::to_owned), text()]
        // The vendor's words for ours are read as ours.
        .prop_filter("own words", |word| !["g3fax", "remotefilesystem", "groupfids"].contains(&word.as_str()))
}

const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// An entry without id, and its members by their place among all.
fn draft() -> impl Strategy<Value = (Entry, Vec<Index>)> {
    let texts = btree_map(select(TEXT_FIELDS.to_vec()), text(), 0..6);
    (class(), texts, vec(any::<Index>(), 0..4)).prop_map(|(class, texts, members)| {
        let mut made = entry("", &[("class", &class)]);
        made.fields.extend(texts.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))));
        (made, members)
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    (vec(draft(), 0..8), btree_set(UUID, 8)).prop_map(|(drafts, ids)| {
        let ids: Vec<String> = ids.into_iter().take(drafts.len()).collect();
        let identify = |((mut made, members), at): ((Entry, Vec<Index>), usize)| {
            made.id.clone_from(&ids[at]);
            made.fields.insert("index".to_owned(), Value::Text((at + 1).to_string()));
            if !members.is_empty() {
                let members = members.iter().map(|member| member.get(&ids).clone()).collect();
                made.fields.insert("members".to_owned(), Value::Set(members));
            }
            made
        };
        drafts.into_iter().zip(0..).map(identify).collect()
    })
}

fn options() -> impl Strategy<Value = WriteOptions> {
    (any::<[bool; 4]>(), select(vec![',', ';', '|', ' ']), "[^\r\n]{0,8}", 0..9u32).prop_map(
        |([bom, comma, feed, ended], separator, name, version)| {
            let mut options = WriteOptions::new(Header::one_touch(Version::new(version), &name));
            options.columns.extend(["Neu & alt", "色"].map(str::to_owned));
            options.defaults.clear();
            options.layout.bom = bom;
            options.layout.trailing_comma = comma;
            options.layout.final_line_end = ended;
            options.layout.member_separator = separator;
            options.layout.line_end = if feed { LineEnd::Lf } else { LineEnd::CrLf };
            options
        },
    )
}

proptest! {
    #[test]
    fn entries_survive_being_written_and_read(entries in entries(), options in options()) {
        let (bytes, left_out) = csv::write(&entries, &options).unwrap();
        prop_assert_eq!(left_out, []);
        let (book, _) = read(&bytes);
        prop_assert_eq!(&book.entries, &entries);
        prop_assert_eq!(&book.header, &options.header);
        let again = csv::write(&book.entries, &book.options()).unwrap().0;
        prop_assert_eq!(read(again).0.entries, entries);
    }

    #[test]
    fn any_bytes_are_read_or_refused_with_a_reason(bytes in vec(any::<u8>(), 0..200)) {
        check(&bytes);
        check(&[b"# Canon AddressBook CSV version: 3\nobjectclass,cn,member,indxid,uuid\n", bytes.as_slice()].concat());
    }

    #[test]
    fn a_damaged_sample_is_read_or_refused_with_a_reason(
        name in select(SAMPLES.to_vec()),
        damage in vec((any::<Index>(), select(b"\",\r\n#0\xff".to_vec())), 1..4),
    ) {
        let mut bytes = sample(name);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check(&bytes);
    }
}

/// What is read can be written, and reads the same again; what is refused names a line of the file.
fn check(bytes: &[u8]) {
    match csv::read(bytes) {
        Ok((book, _)) => {
            let (written, left_out) = csv::write(&book.entries, &book.options()).unwrap();
            assert_eq!(left_out, []);
            assert_eq!(read(written).0.entries, book.entries);
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
            assert!(error.problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
        }
    }
}
