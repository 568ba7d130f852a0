//! Files that vary and are read all the same: what becomes of it, and what the operator is told.

use std::collections::HashSet;

use mfpsync_addressbook::NoticeKind;
use mfpsync_addressbook::csv::{self, Version};

use super::{file, notices, read, sample_text};

#[test]
fn newer_versions_are_read_with_a_notice_and_their_columns_kept() {
    let text = file("objectclass,cn,colour,\nemail,Ann,green,\n").replace("0x0002", "0x0004");
    let (book, found) = read(&text);
    assert_eq!(book.header.version, Version::Other(4));
    assert_eq!(found[0].what, NoticeKind::NewerVersion { version: 4 });
    assert_eq!(
        notices(&text),
        ["line 1: version 0x0004 is newer than those known; unknown columns are kept"]
    );
    assert_eq!(book.entries[0].text("csv.colour"), Some("green"));
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
    assert!(notices(text.replace("0x0004", "0x0001")).is_empty());
}

#[test]
fn a_file_that_names_no_character_set_is_read_as_utf8_with_a_notice() {
    let text = file("objectclass,cn,\nemail,山田,\n").replace("# CharSet: UTF-8\n", "");
    assert_eq!(notices(text), ["line 1: no character set is named; read as UTF-8"]);
}

#[test]
fn passwords_never_pass() {
    let plain = file("objectclass,cn,pwd,\nremotefilesystem,Ann,secret,\nremotefilesystem,Bob,,\n");
    assert_eq!(
        notices(&plain),
        ["line 7, column pwd: password left out: passwords are not imported from files"]
    );
    let encrypted = plain.replace("\n\n", "\n# Crypto Version: 2\n# Crypto Attribute: pwd\n\n");
    assert_eq!(
        notices(&encrypted),
        ["line 9, column pwd: password left out: only the exporting machine can read it"]
    );
    for text in [&plain, &encrypted] {
        let (book, _) = read(text);
        let (written, _) = csv::write(&book.entries, &book.options()).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), plain.replace("secret", ""));
    }
}

#[test]
fn members_are_named_by_id_and_written_by_number() {
    let text = file(
        "objectclass,member,indxid,uuid,\n\
         groupfids,201;202,7,91b23a19-2b8f-4916-961e-17ed57813f85,\n\
         email,,201,230824d2-15ce-43a1-8b35-10b0b46ee1da,\n\
         email,,202,92b850ad-7eb7-4f82-a3f6-5da874007cb4,\n",
    );
    let (book, found) = read(&text);
    assert_eq!(found, []);
    let members: Vec<&str> = book.entries[0].set("members").unwrap().iter().map(String::as_str).collect();
    assert_eq!(members, ["230824d2-15ce-43a1-8b35-10b0b46ee1da", "92b850ad-7eb7-4f82-a3f6-5da874007cb4"]);
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
}

#[test]
fn members_that_are_not_in_the_file_are_kept_as_they_are() {
    let text = file("objectclass,member,indxid,\ngroupfids,\"201,999,1:5\",7,\nemail,,201,\n");
    let (book, _) = read(&text);
    assert_eq!(notices(&text), ["line 7, column member: 2 members are not in the file"]);
    assert_eq!(book.entries[0].text("csv.member"), Some("999,1:5"));
    assert_eq!(book.entries[0].set("members").unwrap().iter().next(), Some(&book.entries[1].id));
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
}

#[test]
fn identities_that_are_missing_doubtful_or_repeated_are_replaced() {
    let text = file(
        "objectclass,cn,uuid,\n\
         email,Ann,230824D2-15CE-43A1-8B35-10B0B46EE1DA,\n\
         email,Bob,230824d2-15ce-43a1-8b35-10b0b46ee1da,\n\
         email,Cid,none,\n\
         email,Dan,,\n\
         email,Dan,,\n",
    );
    assert_eq!(
        notices(&text),
        [
            "line 8, column uuid: identity already stands in line 7; another one derived from the content",
            "line 9, column uuid: not a UUID; identity derived from the content",
            "line 11: same entry as in line 10; both are kept",
        ]
    );
    let (book, _) = read(&text);
    assert_eq!(book.entries[0].id, "230824d2-15ce-43a1-8b35-10b0b46ee1da");
    assert_eq!(book.entries.iter().map(|entry| &entry.id).collect::<HashSet<_>>().len(), 5);
    assert_eq!(book.entries, read(&text).0.entries, "derived ids are the same every time");
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
}

#[test]
fn unknown_classes_stay_and_our_own_words_do_not_change_them() {
    let text = file("objectclass,dialdata\nipfax,1\nfax,2\ngroup,\n");
    let (book, _) = read(&text);
    let classes: Vec<_> = book.entries.iter().map(|entry| entry.text("class").unwrap()).collect();
    assert_eq!(classes, ["ipfax", "fax", "group"]);
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
}

#[test]
fn blank_rows_are_skipped_and_rows_of_commas_noticed() {
    let text = file("objectclass,cn,\n\nemail,Ann,\n,,\n\r\nemail,Bob,\n\n");
    assert_eq!(notices(&text), ["line 9: empty row left out"]);
    assert_eq!(read(&text).0.entries.len(), 2);
}

#[test]
fn a_missing_last_line_end_is_noticed_where_a_cut_would_not_show() {
    assert_eq!(
        notices(file("objectclass,cn\nemail,An")),
        ["line 7: last line has no line end: the file may have been cut"]
    );
    let text = file("objectclass,cn,\nemail,Ann,");
    assert!(notices(&text).is_empty());
    let (book, _) = read(&text);
    assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes());
}

#[test]
fn what_a_spreadsheet_makes_of_a_file_is_read() {
    let text = "# Canon AddressBook CSV version: 0x0002,,,\r\n# CharSet: UTF-8,,,\r\n\
                \"# SubAddressBookName: Tokyo, Sales\",,,\r\n,,,\r\nobjectclass,cn,,\r\nemail,Ann,,\r\n";
    let (book, found) = read(text);
    assert_eq!(found, []);
    assert_eq!(book.header.list_name().as_deref(), Some("Tokyo, Sales"));
    assert_eq!((book.columns.len(), book.entries[0].text("name")), (2, Some("Ann")));
}

#[test]
fn needless_quotes_change_nothing() {
    let text = sample_text("address-list.csv");
    let (head, rows) = text.split_once("\r\n\r\n").unwrap();
    let rows = rows.replace(",\r\n", "\r\n").replace(',', "\",\"").replace("\r\n", "\"\r\n\"");
    let quoted = format!("{head}\r\n\r\n\"{}", rows.strip_suffix('"').unwrap());
    assert_eq!(read(&quoted).0.entries, read(&text).0.entries);
}
