//! The sample files, whole and cut.

use std::collections::BTreeMap;

use mfpsync_addressbook::csv::{self, LineEnd, Version};
use mfpsync_addressbook::{NaturalKey, ProblemKind};

use super::{SAMPLES, problems, read, sample, sample_text};

#[test]
fn samples_come_back_to_the_byte() {
    for name in SAMPLES {
        let bytes = sample(name);
        let (book, notices) = read(&bytes);
        assert_eq!(notices, [], "{name}");
        let (written, left_out) = csv::write(&book.entries, &book.options()).unwrap();
        assert!(written == bytes, "{name}");
        assert_eq!(left_out, []);
    }
}

#[test]
fn an_address_list_is_understood() {
    let (book, _) = read(sample("address-list.csv"));
    assert_eq!((book.header.version, book.columns.len(), book.entries.len()), (Version::V2, 49, 200));
    assert!(!book.layout.bom && book.layout.trailing_comma && book.layout.line_end == LineEnd::CrLf);
    assert!(!book.header.is_one_touch());
    assert_eq!(book.header.list_name(), None);

    let mut classes = BTreeMap::new();
    for entry in &book.entries {
        *classes.entry(entry.text("class").unwrap()).or_insert(0) += 1;
    }
    let expected = [("email", 100), ("fax", 20), ("folder", 40), ("group", 20), ("ifax", 20)];
    assert_eq!(classes, expected.into());

    let first = &book.entries[0];
    assert_eq!(first.id, "230824d2-15ce-43a1-8b35-10b0b46ee1da");
    for (name, text) in [
        ("name", "Victor Martinez"),
        ("reading", "Victor Martinez"),
        ("short_name", "Victor Marti"),
        ("mail", "lisahunter@may-stevens.example.com"),
        ("protocol", "smtp"),
        ("index", "201"),
        ("csv.enablepartial", "off"),
        ("csv.cnreadlang", "en"),
    ] {
        assert_eq!(first.text(name), Some(text), "{name}");
    }
    assert!(!first.fields.contains_key("csv.uuid") && !first.fields.contains_key("host"));
    let folder = NaturalKey::Folder {
        protocol: "smb".to_owned(),
        host: "taylor-duran-nas/scan".to_owned(),
        path: "users/schmidtlee".to_owned(),
    };
    assert_eq!(book.entries[5].natural_key(), Some(folder));
}

#[test]
fn one_touch_buttons_are_understood() {
    let (book, _) = read(sample("one-touch.csv"));
    assert_eq!((book.header.version, book.columns.len(), book.entries.len()), (Version::V3, 50, 60));
    assert!(book.layout.bom && book.header.is_one_touch());
    assert_eq!(book.columns[49], "folderidflag");
}

#[test]
fn samples_survive_line_feeds_alone_and_the_loss_of_trailing_commas() {
    for name in SAMPLES {
        let text = sample_text(name).replace(",\r\n", "\n").replace("\r\n", "\n");
        let (book, notices) = read(&text);
        assert_eq!((book.layout.trailing_comma, book.layout.line_end, notices), (false, LineEnd::Lf, vec![]));
        assert_eq!(book.entries, read(sample(name)).0.entries);
        assert!(csv::write(&book.entries, &book.options()).unwrap().0 == text.as_bytes(), "{name}");
    }
}

/// Every cut is either between two rows, where a shorter file is a sound one, or named with its line.
#[test]
fn a_sample_cut_anywhere_is_read_whole_rows_only_or_refused_at_the_cut() {
    let ten_entries = sample_text("one-touch.csv").split_inclusive('\n').take(17).collect::<String>();
    let bytes = ten_entries.as_bytes();
    let columns_end = bytes.windows(15).position(|window| window == b"folderidflag,\r\n").unwrap() + 15;
    for len in columns_end..bytes.len() {
        let cut = &bytes[..len];
        let lines = 1 + cut.iter().filter(|&&byte| byte == b'\n').count() as u64;
        match csv::read(cut) {
            Ok((book, _)) => {
                let last = bytes[..len].rsplit(|&byte| byte == b'\n').next().unwrap();
                assert!(
                    last.is_empty() || last.ends_with(b"\r") || bytes[len..].starts_with(b"\r\n"),
                    "{len}"
                );
                assert_eq!(book.entries.len() as u64, lines - 8 + u64::from(!last.is_empty()), "{len}");
            }
            Err(error) => {
                assert_eq!(error.problems.len(), 1, "{len}");
                assert_eq!(error.problems[0].line, lines, "{len}");
                assert!(
                    matches!(error.problems[0].what, ProblemKind::CellCount { expected: 51, .. }),
                    "{len}"
                );
            }
        }
    }
}

#[test]
fn a_row_cut_in_the_middle_names_the_first_column_it_lacks() {
    let text = sample_text("address-list.csv");
    let at = text.find("smb,stephanie78").unwrap();
    assert_eq!(problems(&text[..at + 8]), ["line 12, column pwd: row has 12 cells instead of 50"]);
}
