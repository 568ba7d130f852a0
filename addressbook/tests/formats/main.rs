//! ABK, LDIF and vCard through their doors: real files, broken files, made-up entries.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod abk;
mod ldif;
mod vcard;

use std::collections::BTreeMap;

use mfpsync_addressbook::{Entry, Notice, ReadError, Value};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../tests/samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn shown(notices: &[Notice]) -> Vec<String> {
    notices.iter().map(ToString::to_string).collect()
}

fn problems<T: std::fmt::Debug>(read: Result<T, ReadError>) -> Vec<String> {
    read.unwrap_err().problems.iter().map(ToString::to_string).collect()
}

fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::Text((*text).to_owned()));
    Entry { id: id.to_owned(), fields: fields.iter().map(text).collect() }
}

const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// Class, texts and members by their place among all.
type Drawn = (&'static str, BTreeMap<&'static str, String>, Vec<Index>);

/// Entries of these classes and text fields; groups list some of all entries.
fn entries(
    classes: &'static [&'static str],
    fields: &'static [&'static str],
    text: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = Vec<Entry>> {
    let draft = (select(classes), btree_map(select(fields), text, 0..6), vec(any::<Index>(), 0..4));
    (vec(draft, 0..8), btree_set(UUID, 8)).prop_map(|(drafts, ids)| {
        let ids: Vec<String> = ids.into_iter().take(drafts.len()).collect();
        let made = |((class, texts, members), id): (Drawn, &String)| {
            let mut made = entry(id, &[("class", class)]);
            made.fields.extend(texts.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))));
            match class {
                "email" => {
                    _ = made
                        .fields
                        .entry("mail".to_owned())
                        .or_insert_with(|| Value::Text("a@example.com".to_owned()))
                }
                "fax" => {
                    made.fields.remove("mail");
                    made.fields.entry("number".to_owned()).or_insert_with(|| Value::Text("03".to_owned()));
                }
                _ => {}
            }
            if class == "group" && !members.is_empty() {
                let members = members.iter().map(|member| member.get(&ids).clone()).collect();
                made.fields.insert("members".to_owned(), Value::Set(members));
            }
            made
        };
        drafts.into_iter().zip(&ids).map(made).collect()
    })
}

/// A group and its members, more than an entry may have lines of any other name.
fn a_large_group() -> Vec<Entry> {
    let id = |number: usize| format!("00000000-0000-4000-8000-{number:012}");
    let member =
        |number| entry(&id(number), &[("class", "email"), ("mail", &format!("m{number}@example.com"))]);
    let mut group = entry(&id(999), &[("class", "group"), ("name", "Everybody")]);
    group.fields.insert("members".to_owned(), Value::Set((0..300).map(id).collect()));
    (0..300).map(member).chain([group]).collect()
}

#[test]
fn a_group_of_many_members_comes_back() {
    use mfpsync_addressbook::csv::LineEnd;
    use mfpsync_addressbook::{ldif as as_ldif, vcard as as_vcard};

    let expected = a_large_group();
    let members = |entries: &[Entry]| entries.last().unwrap().fields["members"].clone();
    let (bytes, left_out) = as_ldif::write(&expected, LineEnd::Lf).unwrap();
    assert_eq!(left_out, []);
    assert_eq!(members(&as_ldif::read(&bytes).unwrap().0.entries), members(&expected));
    for version in [as_vcard::Version::V3, as_vcard::Version::V4] {
        let (bytes, left_out) = as_vcard::write(&expected, version, LineEnd::CrLf).unwrap();
        assert_eq!(left_out, []);
        assert_eq!(members(&as_vcard::read(&bytes).unwrap().0.entries), members(&expected));
    }
}

#[test]
fn a_card_of_as_many_lines_as_may_be_is_written_as_one_that_is_read() {
    use mfpsync_addressbook::csv::LineEnd;
    use mfpsync_addressbook::vcard as as_vcard;

    let unknown: String = (0..117).map(|number| format!("X-{number}:x\n")).collect();
    let card = format!("BEGIN:VCARD\nVERSION:3.0\nFN:Ann\nEMAIL:ann@example.com\n{unknown}END:VCARD\n");
    let (book, notices) = as_vcard::read(card.as_bytes()).unwrap();
    let left_out = shown(&notices).iter().filter(|notice| notice.contains("at most 100 values")).count();
    // 117 and how EMAIL was written, of which 100 are kept.
    assert_eq!(left_out, 18, "those it does not keep are named");
    let (bytes, left_out) = as_vcard::write(&book.entries, as_vcard::Version::V3, LineEnd::Lf).unwrap();
    assert_eq!(left_out, []);
    assert_eq!(as_vcard::read(&bytes).unwrap().0.entries, book.entries);
}
