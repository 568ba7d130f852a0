//! Cuts bytes into lines and comma-separated cells, and knows the line of each cell.
//!
//! It owns quoting and nothing else: character sets, counts and meaning are the reader's. A scanner of our own,
//! because the usual one takes a quote that never ends for the end of the file, takes text behind a closing quote for
//! a part of the cell, and tells the line of a row but not of a cell. Called by `header.rs` and `read.rs`; `write.rs`
//! uses the quoting.
//!
//! **Source**: RFC 4180 section 2; lines may also end with a line feed or a carriage return alone.

use std::borrow::Cow;

use super::{MAX_CELL_BYTES, MAX_COLUMNS};
use crate::error::ProblemKind;

/// Stored cells of a row: every column, the nameless one behind a trailing comma, and one more to see an excess.
const MAX_STORED: usize = 2 * MAX_COLUMNS;

/// One cell, without its quotes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cell<'a> {
    pub(super) line: u64,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) line: u64,
    /// The first cells; a row of absurd width is counted but not stored, so memory stays bounded.
    pub(super) cells: Vec<Cell<'a>>,
    pub(super) count: usize,
    /// What is wrong, with the position of the cell and the line where it begins.
    pub(super) fault: Option<(usize, u64, ProblemKind)>,
    pub(super) ended: bool,
}

impl Row<'_> {
    /// A line with nothing in it.
    pub(super) fn is_blank(&self) -> bool {
        self.count == 1 && self.fault.is_none() && self.is_empty()
    }

    /// Cells with nothing in them.
    pub(super) fn is_empty(&self) -> bool {
        self.cells.iter().all(|cell| cell.bytes.is_empty())
    }
}

/// Walks through bytes.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    rest: &'a [u8],
    line: u64,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, line: 1 }
    }

    /// The line that comes next, from 1.
    pub(super) const fn line(&self) -> u64 {
        self.line
    }

    /// The next line as it stands, with its end.
    pub(super) fn next_line(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        if self.rest.is_empty() {
            return None;
        }
        let text = self.take_until(|byte| matches!(byte, b'\r' | b'\n'));
        Some((text, self.take_line_end()))
    }

    /// The next row; after a quote that never ends, the last one.
    pub(super) fn next_row(&mut self) -> Option<Row<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let mut row = Row { line: self.line, cells: Vec::new(), count: 0, fault: None, ended: false };
        loop {
            let line = self.line;
            let bytes = self.next_cell().unwrap_or_else(|what| {
                row.fault.get_or_insert((row.count, line, what));
                Cow::Borrowed(&[])
            });
            if bytes.len() > MAX_CELL_BYTES {
                let what = ProblemKind::CellTooLarge { limit_bytes: MAX_CELL_BYTES };
                row.fault.get_or_insert((row.count, line, what));
            }
            row.count += 1;
            if row.cells.len() < MAX_STORED {
                row.cells.push(Cell { line, bytes });
            }
            match self.rest.split_first() {
                Some((b',', rest)) => self.rest = rest,
                Some(_) | None => {
                    row.ended = !self.take_line_end().is_empty();
                    return Some(row);
                }
            }
        }
    }

    fn next_cell(&mut self) -> Result<Cow<'a, [u8]>, ProblemKind> {
        if self.rest.first() != Some(&b'"') {
            return Ok(Cow::Borrowed(self.take_until(|byte| matches!(byte, b',' | b'\r' | b'\n'))));
        }
        self.rest = &self.rest[1..];
        let mut bytes = Cow::Borrowed(&[][..]);
        loop {
            let part = self.take_until(|byte| byte == b'"');
            self.line += line_ends(part);
            if bytes.is_empty() {
                bytes = Cow::Borrowed(part);
            } else {
                bytes.to_mut().extend_from_slice(part);
            }
            match self.rest {
                [] => return Err(ProblemKind::UnterminatedQuote),
                [_, b'"', rest @ ..] => {
                    bytes.to_mut().push(b'"');
                    self.rest = rest;
                }
                [_, rest @ ..] => {
                    self.rest = rest;
                    let stray = self.take_until(|byte| matches!(byte, b',' | b'\r' | b'\n'));
                    return if stray.is_empty() { Ok(bytes) } else { Err(ProblemKind::TextAfterQuote) };
                }
            }
        }
    }

    fn take_until(&mut self, stop: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.rest.iter().position(|&byte| stop(byte)).unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(len);
        self.rest = rest;
        text
    }

    fn take_line_end(&mut self) -> &'a [u8] {
        let len = match self.rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        self.line += u64::from(len > 0);
        let (end, rest) = self.rest.split_at(len);
        self.rest = rest;
        end
    }
}

fn line_ends(text: &[u8]) -> u64 {
    let feeds = text.iter().filter(|&&byte| byte == b'\n').count();
    let returns =
        text.iter().enumerate().filter(|&(at, &byte)| byte == b'\r' && text.get(at + 1) != Some(&b'\n'));
    (feeds + returns.count()) as u64
}

/// Appends a cell, in quotes where it could be misread without.
pub(super) fn push_cell(out: &mut Vec<u8>, text: &str) {
    if ['"', ',', '\r', '\n'].iter().any(|&special| text.contains(special)) {
        out.push(b'"');
        out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Vec<Row<'_>> {
        let mut scanner = Scanner::new(text.as_bytes());
        std::iter::from_fn(|| scanner.next_row()).collect()
    }

    fn texts(text: &str) -> Vec<Vec<String>> {
        let cell = |cell: &Cell<'_>| String::from_utf8(cell.bytes.to_vec()).unwrap();
        rows(text).iter().map(|row| row.cells.iter().map(cell).collect()).collect()
    }

    #[test]
    fn cells_are_cut_at_commas_and_rows_at_line_ends() {
        assert_eq!(
            texts("a,,\"b\"\r\n\"c,\"\"d\",\ne\rf"),
            [vec!["a", "", "b"], vec!["c,\"d", ""], vec!["e"], vec!["f"]]
        );
        assert_eq!(texts("a\"b,c"), [["a\"b", "c"]]);
        assert_eq!(texts("\"\"\"\"\"\""), [["\"\""]]);
        assert!(rows("").is_empty());
    }

    #[test]
    fn lines_within_quotes_are_counted() {
        let rows = rows("a,\"1\r\n2\n3\r4\",b\nc\n");
        let lines: Vec<Vec<u64>> =
            rows.iter().map(|row| row.cells.iter().map(|cell| cell.line).collect()).collect();
        assert_eq!(lines, [vec![1, 1, 4], vec![5]]);
    }

    #[test]
    fn quotes_that_never_end_are_told_with_the_place_where_they_begin() {
        let rows = rows("a\nb,\"c\nd,e\n");
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1].fault, Some((1, 2, ProblemKind::UnterminatedQuote)));
    }

    #[test]
    fn text_behind_a_closing_quote_spoils_one_row_only() {
        let rows = rows("a,\"b\"c,d\ne\n");
        assert_eq!(rows[0].fault, Some((1, 1, ProblemKind::TextAfterQuote)));
        assert_eq!((rows[0].count, rows[1].fault.clone()), (3, None));
    }

    #[test]
    fn absurdly_wide_rows_are_counted_but_not_stored() {
        let text = ",".repeat(1_000_000);
        let rows = rows(&text);
        assert_eq!((rows[0].count, rows[0].cells.len()), (1_000_001, MAX_STORED));
    }

    proptest! {
        #[test]
        fn a_written_row_reads_the_same_here_and_in_another_implementation(
            row in prop::collection::vec("[a,\"\r\n #é漢]{0,6}", 2..6),
        ) {
            let mut out = Vec::new();
            for (at, cell) in row.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                push_cell(&mut out, cell);
            }
            prop_assert_eq!(&texts(std::str::from_utf8(&out).unwrap()), std::slice::from_ref(&row));
            let mut other = ::csv::ReaderBuilder::new().has_headers(false).from_reader(out.as_slice());
            let other: Vec<String> = other.records().next().unwrap().unwrap().iter().map(str::to_owned).collect();
            prop_assert_eq!(other, row);
        }
    }
}
