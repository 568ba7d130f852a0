//! vCard 3.0 and 4.0.

use mfpsync_addressbook::Value;
use mfpsync_addressbook::csv::LineEnd;
use mfpsync_addressbook::vcard::{self, Book, Version};
use proptest::prelude::*;

use super::{entries, entry, problems, sample, shown};

fn read(text: impl AsRef<[u8]>) -> (Book, Vec<String>) {
    let (book, notices) = vcard::read(text.as_ref()).unwrap();
    (book, shown(&notices))
}

fn written(book: &Book) -> Vec<u8> {
    let (bytes, left_out) = vcard::write(&book.entries, book.version, book.line_end).unwrap();
    assert_eq!(left_out, []);
    bytes
}

fn card(lines: &str) -> String {
    format!("BEGIN:VCARD\nVERSION:4.0\n{lines}END:VCARD\n")
}

#[test]
fn the_sample_comes_back_to_the_byte() {
    let bytes = sample("contacts.vcf");
    let (book, notices) = read(&bytes);
    assert_eq!(notices, [""; 0]);
    assert_eq!((book.version, book.entries.len()), (Version::V4, 120));
    let expected =
        [("class", "email"), ("name", "太田 真綾"), ("mail", "phyllispowell@young-smith.example.com")];
    assert_eq!(book.entries[1], entry("92b850ad-7eb7-4f82-a3f6-5da874007cb4", &expected));
    assert_eq!(book.entries[5].text("class"), Some("fax"));
    assert_eq!(book.entries[5].text("number"), Some("07094821993"));
    assert!(written(&book) == bytes, "the file differs");
}

#[test]
fn unknown_properties_and_parameters_are_kept() {
    let text = card(
        "UID:x-1\nitem1.FN;LANGUAGE=de:Ann\\, B\nEMAIL:a@example.com\nEMAIL:b@example.com\nTEL;TYPE=cell:1\n\
         TEL;TYPE=\"work,fax\":03-1\nX-A;P=\"a:b\":c\n d\nX-A:2\nKIND:individual\n",
    );
    let (book, notices) = read(text);
    assert_eq!(notices, ["line 3, column UID: not a UUID; identity derived from the content"]);
    let expected = [
        ("class", "email"),
        ("name", "Ann, B"),
        ("vcard.FN", "item1.FN;LANGUAGE=de"),
        ("mail", "a@example.com"),
        ("vcard.EMAIL", "EMAIL"),
        ("vcard.EMAIL#2", "EMAIL:b@example.com"),
        ("number", "03-1"),
        ("vcard.TEL", "TEL;TYPE=\"work,fax\""),
        ("vcard.TEL#2", "TEL;TYPE=cell:1"),
        ("vcard.X-A", "X-A;P=\"a:b\":cd"),
        ("vcard.X-A#2", "X-A:2"),
        ("vcard.KIND", "KIND:individual"),
        ("vcard.UID", "UID:x-1"),
    ];
    assert_eq!(book.entries, [entry(&book.entries[0].id, &expected)]);
    assert_eq!(read(written(&book)).0, book);
}

#[test]
fn cards_spelled_otherwise_come_back_alike() {
    let uuid = "230824D2-15CE-43A1-8B35-10B0B46EE1DA";
    let text = card(&format!(
        "UID:{uuid}\nFN:Ann\nFN;X=1:Anna\nfn:A\\, B\na.EMAIL:a@example.com\nb.email:b@example.com\n"
    )) + &card(&format!("a.KIND:Group\nFN:all\na.MEMBER:URN:UUID:{uuid}\n"));
    let (book, notices) = read(text);
    assert_eq!(notices, [""; 0]);
    let ann = &book.entries[0];
    assert_eq!(ann.id, uuid.to_lowercase());
    assert_eq!(
        (ann.text("vcard.UID"), ann.text("vcard.FN"), ann.text("vcard.FN#2")),
        (Some(format!("UID:{uuid}").as_str()), Some("FN;X=1:Anna"), Some("fn:A\\, B"))
    );
    assert_eq!(book.entries[1].fields["members"], Value::Set([ann.id.clone()].into()));
    assert_eq!(read(written(&book)).0, book);
}

#[test]
fn groups_name_members_by_their_uid() {
    let ann = "UID:urn:uuid:230824D2-15ce-43a1-8b35-10b0b46ee1da\nFN:Ann\nEMAIL:a@example.com\n";
    let all = "KIND:group\nFN:all\nMEMBER:urn:uuid:230824d2-15ce-43a1-8b35-10b0b46ee1da\nMEMBER:mailto:x@example.com\n";
    let (book, notices) = read(card(ann) + &card(all));
    assert_eq!(notices, ["line 12, column MEMBER: 1 members are not in the file"]);
    let group = &book.entries[1];
    assert_eq!(group.text("class"), Some("group"));
    assert_eq!(
        group.fields["members"],
        Value::Set(["230824d2-15ce-43a1-8b35-10b0b46ee1da".to_owned()].into())
    );
    assert_eq!(read(written(&book)).0, book);
    let three = vcard::write(&book.entries[..1], Version::V3, LineEnd::CrLf).unwrap().0;
    let three = String::from_utf8(three).unwrap();
    assert!(three.contains("VERSION:3.0\r\n") && three.contains("N:Ann;;;;\r\n"), "{three}");
}

#[test]
fn cards_without_destination_are_left_out() {
    let (book, notices) = read(card("FN:Ann\nTEL;TYPE=cell:1\n"));
    assert_eq!(book.entries, []);
    assert_eq!(notices, ["line 1: entry left out: it has no mail address, fax number or members"]);
}

#[test]
fn faults_name_their_line() {
    for (text, expected) in [
        (String::new(), vec!["line 1: not an address book of this format"]),
        ("FN:x\n".to_owned(), vec!["line 1: not an address book of this format"]),
        (
            "BEGIN:VCARD\nVERSION:4.0\nFN:x\n".to_owned(),
            vec!["line 1: card has no END:VCARD: the file may have been cut"],
        ),
        (
            card("FN:x\nEMAIL:a\n").replace("END:VCARD\n", "") + &card("FN:x\nEMAIL:b\n"),
            vec!["line 1: card has no END:VCARD: the file may have been cut"],
        ),
        (card("FN:x\nEMAIL\n"), vec!["line 4: not of the form `name: value`"]),
        (card("EMAIL:a\n"), vec!["line 1, column FN: attribute is missing"]),
        (
            card("FN:x\n").replace("4.0", "2.1"),
            vec!["line 2, column VERSION: version is not read; export as 3.0 or 4.0"],
        ),
        (card("FN:x\n").replace("VERSION:4.0\n", ""), vec!["line 1, column VERSION: attribute is missing"]),
        (card("FN:x\nEMAIL:a\nUID:1\nUID:2\n"), vec!["line 6, column UID: attribute appears twice"]),
        (
            card("FN:x\nEMAIL:a\nEND:x\na.BEGIN:VCARD\n"),
            vec![
                "line 5: BEGIN and END stand around a card, not in it",
                "line 6: BEGIN and END stand around a card, not in it",
            ],
        ),
        (card("FN:x\nEMAIL:a\nversion:4.0\n"), vec!["line 5, column VERSION: attribute appears twice"]),
        (card("FN:x\nEMAIL:a\n") + "END:VCARD\n", vec!["line 6: line belongs to no card"]),
        (card("FN:x\nEMAIL:a\n") + "x\n", vec!["line 6: line belongs to no card"]),
    ] {
        assert_eq!(problems(vcard::read(text.as_bytes())), expected, "{text}");
    }
    assert_eq!(problems(vcard::read(b"BEGIN:VCARD\nFN:\xff\nEND:VCARD\n"))[0], "line 2: invalid UTF-8");
}

const CLASSES: &[&str] = &["email", "fax", "group"];
const FIELDS: &[&str] = &["name", "reading", "mail", "number"];

proptest! {
    #[test]
    fn entries_survive(
        mut entries in entries(CLASSES, FIELDS, prop_oneof!["[a-c :<#\n=,;\\\\\"]{1,8}", "\\PC{1,60}", "[0-9+-]{1,9}"]),
        unknown in "[ -~あ]{0,90}",
        feed: bool,
        three: bool,
    ) {
        for entry in &mut entries {
            entry.fields.insert("vcard.X-NOTE".to_owned(), Value::Text(format!("X-NOTE:{unknown}")));
        }
        let line_end = if feed { LineEnd::Lf } else { LineEnd::CrLf };
        let version = if three { Version::V3 } else { Version::V4 };
        let (bytes, left_out) = vcard::write(&entries, version, line_end).unwrap();
        prop_assert_eq!(left_out, []);
        prop_assert!(entries.is_empty() || read(&bytes).0.entries == entries);
    }
}
