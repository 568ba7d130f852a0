//! One content line: name, parameters, value, and how a text value is escaped.
//!
//! A scanner of our own: a file is refused by line, and what we do not know must come back to the byte. Called by
//! `read.rs` and `write.rs`.
//!
//! **Source**: RFC 6350 sections 3.3 and 3.4.

/// A content line, cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Property<'a> {
    /// All before the value's colon.
    pub(super) head: &'a str,
    /// Without a group's name, as it is spelled.
    pub(super) name: &'a str,
    params: &'a str,
    /// As it is, escapes included.
    pub(super) value: &'a str,
}

impl<'a> Property<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let colon = position(line, ':')?;
        let (head, value) = (&line[..colon], &line[colon + 1..]);
        let (name, params) = head.split_at(head.find(';').unwrap_or(head.len()));
        let (group, name) = name.split_once('.').map_or((None, name), |(group, name)| (Some(group), name));
        (is_token(name) && group.is_none_or(is_token)).then_some(Self { head, name, params, value })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Whether a parameter has this among its values, in any case; 3.0 also knows values without a name.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        let mut rest = self.params;
        while let Some(param) = rest.strip_prefix(';') {
            let end = position(param, ';').unwrap_or(param.len());
            let (key, values) = param[..end].split_once('=').unwrap_or((name, &param[..end]));
            let found = || values.split(',').any(|found| found.trim_matches('"').eq_ignore_ascii_case(value));
            if key.eq_ignore_ascii_case(name) && found() {
                return true;
            }
            rest = &param[end..];
        }
        false
    }
}

/// The first of a character outside quotes.
fn position(text: &str, wanted: char) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, char)| {
        quoted ^= char == '"';
        (char == wanted && !quoted).then_some(at)
    })
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// A text value as it is written.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.replace("\r\n", "\n").chars() {
        match char {
            '\n' | '\r' => out.push_str("\\n"),
            '\\' | ',' | ';' => out.extend(['\\', char]),
            _ => out.push(char),
        }
    }
    out
}

/// A text value as it is meant.
pub(super) fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, true) => match chars.next() {
                Some('n' | 'N') => out.push('\n'),
                Some(escaped) => out.push(escaped),
                None => out.push('\\'),
            },
            (char, false) => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_outside_quotes() {
        let found = Property::parse("a.TEL;X=\"b:c;d\";TYPE=\"Work,FAX\":tel:1").unwrap();
        assert_eq!((found.name, found.value), ("TEL", "tel:1"));
        assert!(found.has("type", "fax") && found.has("TYPE", "work") && !found.has("TYPE", "home"));
        assert!(Property::parse("TEL;FAX:1").unwrap().has("TYPE", "fax"));
        for line in ["", "TEL", ":x", "T EL:x", "TEL;X=\":x"] {
            assert_eq!(Property::parse(line), None, "{line}");
        }
    }

    #[test]
    fn texts_survive_their_escapes() {
        for text in ["", "a", "a,b;c\\d\ne", "\\n", "\\"] {
            assert_eq!(unescape(&escape(text)), text);
        }
        assert_eq!(unescape("a\\Nb\\"), "a\nb\\");
    }
}
