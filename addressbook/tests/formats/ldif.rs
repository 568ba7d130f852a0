//! LDIF of a directory.

use mfpsync_addressbook::csv::LineEnd;
use mfpsync_addressbook::ldif::{self, Book};
use mfpsync_addressbook::{LeftOutKind, Value};
use proptest::prelude::*;

use super::{entries, entry, problems, sample, shown};

fn read(text: impl AsRef<[u8]>) -> (Book, Vec<String>) {
    let (book, notices) = ldif::read(text.as_ref()).unwrap();
    (book, shown(&notices))
}

fn written(book: &Book) -> Vec<u8> {
    let (bytes, left_out) = ldif::write(&book.entries, book.line_end).unwrap();
    assert_eq!(left_out, []);
    bytes
}

#[test]
fn the_sample_is_understood_and_survives() {
    let (mut book, notices) = read(sample("directory.ldif"));
    let twice = "line 597, column dn: name already stands in line 120; both are kept, members of that name are not followed";
    assert_eq!(notices, [twice]);
    assert_eq!(book.entries.len(), 100);
    let expected = [
        ("class", "email"),
        ("name", "太田 真綾"),
        ("mail", "phyllispowell@young-smith.example.com"),
        ("ldif.dn", "cn=太田 真綾,ou=People,dc=example,dc=com"),
        ("ldif.sn", "真綾"),
        ("ldif.uid", "phyllispowell"),
    ];
    assert_eq!(book.entries[1], entry(&book.entries[1].id, &expected));
    let (bytes, left_out) = ldif::write(&book.entries, book.line_end).unwrap();
    let [left_out] = left_out.as_slice() else { panic!("{left_out:?}") };
    assert_eq!((left_out.field.as_str(), &left_out.what), ("ldif.dn", &LeftOutKind::NameReplaced));
    book.entries[left_out.entry].fields.remove("ldif.dn");
    assert_eq!(read(bytes), (book, Vec::new()));
}

#[test]
fn groups_name_members_by_their_names() {
    let text = "dn: cn=Ann,dc=x\nobjectClass: inetOrgPerson\ncn: Ann\nmail: ann@example.com\n\n\
                dn: cn=all,dc=x\nobjectClass: groupOfUniqueNames\ncn: all\nuniqueMember: CN=ann, dc=x\nuniqueMember: cn=gone,dc=x\n";
    let (book, notices) = read(text);
    assert_eq!(notices, ["line 9, column uniqueMember: 1 members are not in the file"]);
    let group = &book.entries[1];
    assert_eq!(group.text("class"), Some("group"));
    assert_eq!(group.fields["members"], Value::Set([book.entries[0].id.clone()].into()));
    assert_eq!(group.text("ldif.uniqueMember"), Some("cn=gone,dc=x"));
    assert_eq!(read(written(&book)).0, book);
}

#[test]
fn entries_spelled_otherwise_come_back_alike() {
    let text = "DN: cn=Ann\nOBJECTCLASS: Top\nobjectClass:\nCN: Ann\ncn: Anna\nSN: Ann\nsn: A\nUID: a\nuid: b\nMail: a@example.com\n\
                ENTRYUUID: 230824D2-15CE-43A1-8B35-10B0B46EE1DA\n\n\
                dn: cn=all\nobjectclass: GROUPOFNAMES\ncn: all\nMEMBER: CN=ANN\n";
    let (book, notices) = read(text);
    assert_eq!(notices, [""; 0]);
    assert_eq!(book.entries[1].fields["members"], Value::Set([book.entries[0].id.clone()].into()));
    assert_eq!(read(written(&book)).0, book);
}

#[test]
fn what_machines_do_not_use_is_kept_or_told() {
    let photo = "A".repeat(60_000);
    let text = format!(
        "version: 1\n# people\n#  of x\ndn: cn=Ann\ncn: Ann\nmail: a@example.com\nmail: b@example.com\nuserPassword: s\njpegPhoto:: /9j/\njpegPhoto:: {photo}\n\n\
         dn: dc=x\nobjectClass: domain\n"
    );
    let (book, notices) = read(text);
    assert_eq!(
        notices,
        [
            "line 8, column userPassword: password left out: passwords are not imported from files",
            "line 10, column jpegPhoto: value left out: an entry keeps at most 32768 bytes of what machines do not use",
            "line 12: entry left out: it has no mail address, fax number or members",
        ]
    );
    assert_eq!(book.entries.len(), 1);
    assert_eq!(book.entries[0].text("ldif.mail"), Some("b@example.com"));
    assert_eq!(book.entries[0].text("ldif.jpegPhoto::"), Some("/9j/"));
    assert_eq!(read(written(&book)).0, book);
}

#[test]
fn faults_name_their_line() {
    for (text, expected) in [
        ("", "line 1: not an address book of this format"),
        ("cn: x\n", "line 1: not an address book of this format"),
        ("version: 2\ndn: x\nmail: a\n", "line 1, column version: unreadable version number"),
        (
            "dn: x\nchangetype: add\nmail: a\n",
            "line 2, column changetype: change records are not imported; export the entries themselves",
        ),
        (
            "dn: x\njpegPhoto:< file:///a\nmail: a\n",
            "line 2, column jpegPhoto: value is given by a URL and is not fetched; put the value itself into the file",
        ),
        ("dn: x\nmail:: ?\n", "line 2, column mail: value is not base64"),
        ("dn: x\nmail\n", "line 2: not of the form `name: value`"),
        ("dn: x\nmail:: /w==\n", "line 2, column mail: invalid UTF-8"),
        ("dn: x\nmail: a\n\nmail: b\n", "line 4, column dn: attribute is missing"),
        ("dn: x\nmail: a\n\n mail: b\n", "line 4: continues no line"),
    ] {
        assert_eq!(problems(ldif::read(text.as_bytes())), [expected], "{text}");
    }
}

#[test]
fn destinations_that_a_directory_lacks_are_told() {
    let entries = [
        entry("a", &[("class", "folder"), ("host", "nas")]),
        entry("b", &[("class", "email"), ("mail", "b@example.com"), ("index", "1")]),
    ];
    let (bytes, left_out) = ldif::write(&entries, LineEnd::Lf).unwrap();
    let left_out: Vec<String> =
        left_out.iter().map(|left| format!("{} {}: {}", left.entry, left.field, left.what)).collect();
    assert_eq!(
        left_out,
        [
            "0 class: entry left out: the format has no destinations of this class",
            "1 index: no column for this field"
        ]
    );
    assert_eq!(read(bytes).0.entries.len(), 1);
}

const CLASSES: &[&str] = &["email", "fax", "group"];
const FIELDS: &[&str] = &["name", "reading", "mail", "number", "ldif.title", "ldif.X", "ldif.x-a;lang-ja"];

proptest! {
    #[test]
    fn entries_survive(entries in entries(CLASSES, FIELDS, prop_oneof!["[a-c :<#\r\n=,]{1,8}", "\\PC{1,60}"]), feed: bool) {
        let line_end = if feed { LineEnd::Lf } else { LineEnd::CrLf };
        let (bytes, left_out) = ldif::write(&entries, line_end).unwrap();
        prop_assert_eq!(left_out, []);
        prop_assert!(bytes.split(|&byte| byte == b'\n').all(|line| line.len() <= 77 && line.is_ascii()));
        prop_assert_eq!(read(&bytes).0.entries, entries);
    }
}
