//! Address books: what is read can be written, what is written is a file of the same entries unless something was told
//! to be left out, and what is refused names a line of the file.

use mfpsync_addressbook::{Book, Format};

use super::{file, root};

/// Of a sample so many bytes are used: small files find as much and are read faster.
const PIECE: usize = 3_000;

pub(super) fn csv(bytes: &[u8]) -> bool {
    check(Format::Csv, bytes)
}

pub(super) fn abk(bytes: &[u8]) -> bool {
    check(Format::Abk, bytes)
}

pub(super) fn ldif(bytes: &[u8]) -> bool {
    check(Format::Ldif, bytes)
}

pub(super) fn vcard(bytes: &[u8]) -> bool {
    check(Format::Vcard, bytes)
}

pub(super) fn csv_samples() -> Vec<Vec<u8>> {
    vec![sample("address-list.csv", "\n"), sample("one-touch.csv", "\n")]
}

pub(super) fn abk_samples() -> Vec<Vec<u8>> {
    let utf_8 = sample("address-list.abk", "\n");
    let text = String::from_utf8_lossy(&utf_8).replacen("UTF-8", "SHIFT_JIS", 1);
    let japanese = text.chars().filter(char::is_ascii).map(|char| char as u8).collect();
    vec![utf_8, japanese]
}

pub(super) fn ldif_samples() -> Vec<Vec<u8>> {
    vec![sample("directory.ldif", "\n")]
}

pub(super) fn vcard_samples() -> Vec<Vec<u8>> {
    let four = sample("contacts.vcf", "END:VCARD\r\n");
    let three = String::from_utf8_lossy(&four).replace("VERSION:4.0", "VERSION:3.0").into_bytes();
    vec![four, three]
}

/// The first pieces of a sample, each ending so: a file cut elsewhere is refused whatever else is in it.
fn sample(name: &str, end: &str) -> Vec<u8> {
    let text = String::from_utf8(file(&root().join("tests/samples").join(name))).unwrap();
    let mut piece = String::new();
    for part in text.split_inclusive(end).take_while(|part| part.ends_with(end)) {
        if piece.len() + part.len() > PIECE {
            break;
        }
        piece.push_str(part);
    }
    piece.into_bytes()
}

fn check(format: Format, bytes: &[u8]) -> bool {
    match format.read(bytes) {
        Ok((book, _)) => {
            comes_back(format, &book);
            true
        }
        Err(error) => {
            let lines = 1 + bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64;
            assert!(!error.problems.is_empty());
            assert!(error.problems.iter().all(|problem| (1..=lines).contains(&problem.line)), "{error:?}");
            false
        }
    }
}

fn comes_back(format: Format, book: &Book) {
    let (written, left_out) = book.write().unwrap();
    if book.entries().is_empty() {
        return;
    }
    let again = format.read(&written).unwrap().0;
    if left_out.is_empty() {
        assert_same(&again, book);
    }
    let (once_more, _) = again.write().unwrap();
    assert_same(&format.read(&once_more).unwrap().0, &again);
}

fn assert_same(found: &Book, expected: &Book) {
    assert_eq!(found.entries().len(), expected.entries().len());
    for (found, expected) in found.entries().iter().zip(expected.entries()) {
        assert_eq!(found, expected);
    }
}
