//! The vendor's ABK text.

use mfpsync_addressbook::abk::{self, Book, CharSet, Header, WriteOptions};
use mfpsync_addressbook::csv::LineEnd;
use mfpsync_addressbook::{Entry, Value, WriteError};
use proptest::prelude::*;

use super::{entries, entry, problems, sample, shown};

fn file(blocks: &str) -> String {
    format!("# Canon AddressBook version: 1\n# CharSet: UTF-8\n\n{blocks}")
}

fn read(text: impl AsRef<[u8]>) -> (Book, Vec<String>) {
    let (book, notices) = abk::read(text.as_ref()).unwrap();
    (book, shown(&notices))
}

const ANN: &str = "dn: 1\ncn: Ann\nmailaddress: ann@example.com\nobjectclass: top\nobjectclass: extensibleobject\nobjectclass: email\n";

#[test]
fn the_sample_comes_back_to_the_byte() {
    let bytes = sample("address-list.abk");
    let (book, notices) = read(&bytes);
    assert_eq!(notices, [""; 0]);
    assert_eq!(book.entries.len(), 160);
    let first = &book.entries[0];
    for (name, text) in [
        ("class", "email"),
        ("name", "Victor Martinez"),
        ("index", "201"),
        ("mail", "lisahunter@may-stevens.example.com"),
        ("abk.enablepartial", "false"),
    ] {
        assert_eq!(first.text(name), Some(text), "{name}");
    }
    assert!(!first.fields.contains_key("abk.objectclass"));
    let (written, left_out) = abk::write(&book.entries, &book.options()).unwrap();
    assert!(written == bytes, "the file differs");
    assert_eq!(left_out, []);
}

#[test]
fn unknown_and_repeated_attributes_are_kept() {
    let block = "cn: Ann\ncn: Anna\nX-new: 1\nX-new: 2\nlong: a\n b\ncoded:: 44GC\nobjectclass: email\n";
    let (book, _) = read(file(block));
    let expected = [
        ("class", "email"),
        ("name", "Ann"),
        ("abk.cn", "Anna"),
        ("abk.X-new", "1"),
        ("abk.X-new#2", "2"),
        ("abk.long", "ab"),
        ("abk.coded", "あ"),
        ("abk.objectclass", "email"),
    ];
    assert_eq!(book.entries, [entry(&book.entries[0].id, &expected)]);
    let written = abk::write(&book.entries, &book.options()).unwrap().0;
    assert_eq!(read(written).0, book);
}

#[test]
fn groups_name_members_by_number() {
    let group = "dn: 2\ncn: all\nmember: 1\nmember: 7\nobjectclass: groupfids\n";
    let (book, notices) = read(file(&format!("{ANN}\n{group}")));
    assert_eq!(notices, ["line 13, column member: 1 members are not in the file"]);
    let members = [book.entries[0].id.clone()].into();
    assert_eq!(book.entries[1].fields["members"], Value::Set(members));
    assert_eq!(book.entries[1].text("abk.member"), Some("7"));
    let written = abk::write(&book.entries, &book.options()).unwrap().0;
    assert_eq!(read(written).0, book);
}

#[test]
fn an_encrypted_password_is_left_out_and_the_entry_kept() {
    let crypto = "# Crypto Version: 2\n# Crypto Attribute: pwd\n";
    let block = "cn: NAS\nurl: \\\\nas\\scan\npwd: 0123abcd\nobjectclass: remotefilesystem\n";
    let text = file(block).replace("\n\n", &format!("\n{crypto}\n"));
    let (book, notices) = read(text);
    assert_eq!(notices, ["line 8, column pwd: password left out: only the exporting machine can read it"]);
    assert_eq!(book.entries[0].text("host"), Some("\\\\nas\\scan"));
    assert!(!format!("{:?}", book.entries).contains("0123abcd"));
    let written = String::from_utf8(abk::write(&book.entries, &book.options()).unwrap().0).unwrap();
    assert!(!written.contains("Crypto") && !written.contains("pwd"), "{written}");
    let (_, notices) = read(file(block));
    assert_eq!(notices, ["line 6, column pwd: password left out: passwords are not imported from files"]);
}

#[test]
fn faults_name_their_line() {
    let usual = "objectclass: email\n";
    for (blocks, expected) in [
        (format!("cn\n{usual}"), vec!["line 4: not of the form `name: value`"]),
        (format!("c n: x\n{usual}"), vec!["line 4: not of the form `name: value`"]),
        (format!("cn:: !\n{usual}"), vec!["line 4, column cn: value is not base64"]),
        (
            format!("cn:< file:///x\n{usual}"),
            vec![
                "line 4, column cn: value is given by a URL and is not fetched; put the value itself into the file",
            ],
        ),
        (format!(" cn: x\n{usual}"), vec!["line 4: continues no line"]),
        (format!("dn: x\n{usual}"), vec!["line 4, column dn: not a number of one to nine digits"]),
        ("cn: Ann\n".to_owned(), vec!["line 4, column objectclass: attribute is missing"]),
        (format!("uuid: a\nuuid: b\n{usual}"), vec!["line 5, column uuid: attribute appears twice"]),
        (
            format!("{ANN}\n{ANN}\ncn\n{usual}"),
            vec![
                "line 11, column dn: number already stands in line 4",
                "line 18: not of the form `name: value`",
            ],
        ),
        (
            format!("{}{usual}", "x: 1\n".repeat(120)),
            vec!["line 124: more than 120 attributes", "line 4, column objectclass: attribute is missing"],
        ),
    ] {
        let mut found = problems(abk::read(file(&blocks).as_bytes()));
        found.sort();
        assert_eq!(found, expected, "{blocks}");
    }
    for text in ["", "\n", "# Canon AddressBook CSV version: 0x0002\n", "dn: 1\n"] {
        assert_eq!(problems(abk::read(text.as_bytes())), ["line 1: not an address book of this format"]);
    }
    let version = b"# Canon AddressBook version: one\n";
    assert_eq!(problems(abk::read(version)), ["line 1: unreadable version number"]);
    let charset = b"# Canon AddressBook version: 1\n# CharSet: EUC-JP\n";
    assert_eq!(problems(abk::read(charset)), ["line 2: character set EUC-JP is not supported yet"]);
    let bytes = [file("").as_bytes(), b"cn: \xff\nobjectclass: email\n"].concat();
    assert_eq!(problems(abk::read(&bytes)), ["line 4, column cn: not text in UTF-8"]);
}

#[test]
fn a_file_cut_in_its_last_line_is_noticed() {
    let (book, notices) = read(file(ANN.trim_end()));
    assert_eq!(book.entries.len(), 1);
    assert_eq!(notices, ["line 4: last line has no line end: the file may have been cut"]);
}

#[test]
fn a_character_the_set_lacks_is_named_and_nothing_written() {
    let entries = [
        entry("a", &[("class", "email"), ("name", "Ann")]),
        entry("b", &[("class", "email"), ("name", "山é\u{2460}")]),
    ];
    let write = |charset| abk::write(&entries, &WriteOptions::new(charset));
    let WriteError::NotInCharSet { characters, entry: 1, field, .. } = write(CharSet::ShiftJis).unwrap_err()
    else {
        panic!("another error");
    };
    assert_eq!((characters, field.as_str()), (vec!['é'], "name"));
    let text = write(CharSet::Wcp1252).unwrap_err().to_string();
    assert!(text.starts_with("WCP1252 has no U+5C71 `山`, U+2460"), "{text}");
    assert!(write(CharSet::Utf8).is_ok());
}

const CLASSES: &[&str] = &["email", "fax", "ifax", "folder", "group", "ipfax"];
const FIELDS: &[&str] = &[
    "name",
    "reading",
    "short_name",
    "mail",
    "number",
    "host",
    "path",
    "protocol",
    "username",
    "abk.accesscode",
    "abk.X",
    "abk.y;z",
];

fn round_trip(entries: &[Entry], charset: CharSet, line_end: LineEnd) -> Result<(), TestCaseError> {
    let mut options = WriteOptions::new(charset);
    options.header = Header::new(charset, "list");
    options.defaults.clear();
    options.line_end = line_end;
    let (bytes, left_out) = abk::write(entries, &options).unwrap();
    prop_assert_eq!(left_out, []);
    let (book, _) = read(&bytes);
    prop_assert_eq!(book.header.charset(), Some(charset));
    // Members need numbers; those given on writing are read back.
    let mut found = book.entries;
    for (found, entry) in found.iter_mut().zip(entries) {
        if !entry.fields.contains_key("index") {
            found.fields.remove("index");
        }
    }
    prop_assert_eq!(&found, entries);
    Ok(())
}

proptest! {
    #[test]
    fn entries_survive_utf_8(entries in entries(CLASSES, FIELDS, prop_oneof!["[a-c :<#\r\n=]{1,8}", "\\PC{1,40}"]), feed: bool) {
        round_trip(&entries, CharSet::Utf8, if feed { LineEnd::Lf } else { LineEnd::CrLf })?;
    }

    #[test]
    fn entries_survive_wcp1252(entries in entries(CLASSES, FIELDS, "[ -~\u{a0}-\u{ff}€„Œ]{1,20}")) {
        round_trip(&entries, CharSet::Wcp1252, LineEnd::CrLf)?;
    }

    #[test]
    fn entries_survive_shift_jis(entries in entries(CLASSES, FIELDS, "[ -~ぁ-んァ-ヶｱ-ﾝ一七丁表十ソ能①髙\u{e000}\u{e05f}-\u{e757}]{1,20}")) {
        round_trip(&entries, CharSet::ShiftJis, LineEnd::CrLf)?;
    }
}
