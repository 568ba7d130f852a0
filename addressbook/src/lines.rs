//! Cuts bytes into lines and puts folded lines together: what ABK, LDIF and vCard have in common.
//!
//! It works on bytes, since a fold may fall within a character, and knows nothing of what a line says. Called by the
//! readers and writers of these formats.
//!
//! **Source**: RFC 2849 (`SPACE` continues a line) and RFC 6350 section 3.2 (so does a tab).

use crate::csv::LineEnd;

/// UTF-8 byte order mark.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// A line with its continuations, without line ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it begins, from 1.
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
    /// Begins with a continuation's blank although nothing comes before it.
    pub(crate) orphan: bool,
}

/// Walks through the unfolded lines of a file.
#[derive(Debug, Clone)]
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    next: u64,
    continued_by: &'static [u8],
    /// Whether what may be continued came before.
    open: bool,
    /// The first line end of the file.
    pub(crate) line_end: Option<LineEnd>,
    /// Whether the last line is ended too.
    pub(crate) ended: bool,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(bytes: &'a [u8], continued_by: &'static [u8]) -> Self {
        Self { rest: bytes, next: 1, continued_by, open: false, line_end: None, ended: true }
    }

    /// The line that comes next, from 1.
    pub(crate) const fn number(&self) -> u64 {
        self.next
    }

    fn physical(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.next += 1;
        let Some(at) = self.rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
            self.ended = false;
            return Some(std::mem::take(&mut self.rest));
        };
        let (line, end) = self.rest.split_at(at);
        let len = if end.starts_with(b"\r\n") { 2 } else { 1 };
        let found = if len == 2 { LineEnd::CrLf } else { LineEnd::Lf };
        self.line_end.get_or_insert(found);
        self.rest = &end[len..];
        Some(line)
    }

    fn continues(&self) -> bool {
        self.rest.first().is_some_and(|byte| self.continued_by.contains(byte))
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let number = self.next;
        let orphan = !self.open && self.continues();
        let mut bytes = self.physical()?.to_vec();
        // An empty line ends what came before; a blank behind it continues nothing.
        self.open = !bytes.is_empty();
        while self.open && self.continues() {
            bytes.extend(self.physical().unwrap_or_default().iter().skip(1));
        }
        Some(Line { number, bytes, orphan })
    }
}

/// Appends a line, folded so that no line is longer than `width` bytes; characters stay whole.
pub(crate) fn push_folded(out: &mut Vec<u8>, line: &str, width: usize, line_end: LineEnd) {
    let mut used = 0;
    for char in line.chars() {
        if used + char.len_utf8() > width {
            out.extend_from_slice(line_end.as_str().as_bytes());
            out.push(b' ');
            used = 1;
        }
        used += char.len_utf8();
        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out.extend_from_slice(line_end.as_str().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_lines_are_put_together_and_keep_their_number() {
        let mut lines = Lines::new(b"a\r\n b\n  c\n\n d\ne", b" ");
        let found: Vec<(u64, Vec<u8>, bool)> =
            lines.by_ref().map(|line| (line.number, line.bytes, line.orphan)).collect();
        let expected = [
            (1, b"ab c".to_vec(), false),
            (4, Vec::new(), false),
            (5, b" d".to_vec(), true),
            (6, b"e".to_vec(), false),
        ];
        assert_eq!(found, expected);
        assert_eq!((lines.line_end, lines.ended), (Some(LineEnd::CrLf), false));
    }

    #[test]
    fn a_fold_never_cuts_a_character() {
        let mut out = Vec::new();
        push_folded(&mut out, "ああああ", 7, LineEnd::Lf);
        assert_eq!(out, "ああ\n ああ\n".as_bytes());
    }
}
