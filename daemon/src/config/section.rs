//! Walks a TOML table key by key and remembers which keys it was asked for, so that whatever is left
//! over can be named with its path and line.

use std::path::PathBuf;

use toml::de::{DeArray, DeTable, DeValue};

use super::Problem;

/// Ids in one list.
const MAX_IDS: usize = 64;

/// Where the lines of a text begin.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    pub(super) fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|newline| *newline < byte) + 1
    }
}

/// One table under one path.
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a DeTable<'a>>,
    lines: &'a Lines,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a DeTable<'a>, lines: &'a Lines) -> Self {
        Self { path: String::new(), table: Some(table), lines, known: Vec::new(), problems: Vec::new() }
    }

    /// The value of a key, if it is there and right; a problem if it is there and wrong.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let (_, value) = self.table?.get_key_value(key)?;
        match parse(value.get_ref()) {
            Ok(value) => Some(value),
            Err(what) => {
                self.problem(value.span().start, key, what, example);
                None
            }
        }
    }

    /// As [`Section::optional`], but missing is a problem too.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if self.table.is_some_and(|table| !table.contains_key(key)) {
            self.problem(0, key, "is missing".to_owned(), example);
        }
        self.optional(key, example, parse)
    }

    /// Reads a table under this one; a missing table is an empty one.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.known.push(key);
        let value = self.table.and_then(|table| table.get(key));
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            let what = format!("is {}, not a table", value.get_ref().type_str());
            self.problem(value.span().start, key, what, &format!("[{key}]"));
        }
        let mut section = Section {
            path: key.to_owned(),
            table,
            lines: self.lines,
            known: Vec::new(),
            problems: Vec::new(),
        };
        let read = read(&mut section);
        self.problems.extend(section.finish());
        read
    }

    /// Every problem, and one for each key that nobody asked for.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let what = format!("is not a known key; known here: {}", self.known.join(", "));
                self.problem(key.span().start, name, what, "");
            }
        }
        self.problems
    }

    fn problem(&mut self, byte: usize, key: &str, what: String, example: &str) {
        let dot = if self.path.is_empty() { "" } else { "." };
        let key = format!("{}{dot}{key}", self.path);
        let line = self.lines.at(byte);
        self.problems.push(Problem { line, key, what, example: example.to_owned() });
    }
}

/// A text.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("is {}, not a text in quotes", value.type_str()))
}

/// An absolute path.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "expected true or false".to_owned())
}

pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() { Ok(path) } else { Err(format!("`{}` is not an absolute path", path.display())) }
}

/// A list of at least one text, each parsed.
pub(super) fn texts<T>(
    value: &DeValue<'_>,
    most: usize,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let list = array(value, most)?;
    if list.is_empty() {
        return Err("is an empty list; leave the key out instead".to_owned());
    }
    list.iter().map(|entry| parse(text(entry.get_ref())?)).collect()
}

/// A whole number within bounds.
pub(super) fn integer(value: &DeValue<'_>, smallest: u64, highest: u64) -> Result<u64, String> {
    let number = value.as_integer().ok_or_else(|| format!("is {}, not a whole number", value.type_str()))?;
    let parsed = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
    u64::try_from(parsed)
        .ok()
        .filter(|parsed| (smallest..=highest).contains(parsed))
        .ok_or_else(|| format!("{number} is not within {smallest} and {highest}"))
}

/// A list of numeric user ids.
pub(super) fn ids(value: &DeValue<'_>) -> Result<Vec<u32>, String> {
    array(value, MAX_IDS)?.iter().map(|entry| id(entry.get_ref())).collect()
}

/// A group's id, given as a number or by a name in `/etc/group`.
pub(super) fn group(value: &DeValue<'_>) -> Result<u32, String> {
    if value.is_integer() {
        return id(value);
    }
    let name = text(value)?;
    let groups = std::fs::read_to_string("/etc/group").map_err(|error| format!("/etc/group: {error}"))?;
    group_id(&groups, name).ok_or_else(|| format!("no group `{name}` in /etc/group"))
}

/// **Source**: `group(5)`, `name:password:gid:members`.
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut columns = line.split(':');
        (columns.next() == Some(name)).then(|| columns.nth(1)).flatten()?.parse().ok()
    })
}

fn id(value: &DeValue<'_>) -> Result<u32, String> {
    // The highest number means "no change" to the system and is nobody's id.
    integer(value, 0, u64::from(u32::MAX) - 1).map(|id| u32::try_from(id).unwrap_or(u32::MAX))
}

fn array<'v, 'a>(value: &'v DeValue<'a>, most: usize) -> Result<&'v DeArray<'a>, String> {
    let list = value.as_array().ok_or_else(|| format!("is {}, not a list in brackets", value.type_str()))?;
    if list.len() > most {
        return Err(format!("has {} entries, at most {most} are allowed", list.len()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_from_one() {
        let lines = Lines::new("a\nb\n\nc");
        assert_eq!([0, 1, 2, 4, 5].map(|byte| lines.at(byte)), [1, 1, 2, 3, 4]);
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        let groups = "root:x:0:\nbroken\nmfpsync:x:991:panel,web\n";
        assert_eq!(group_id(groups, "mfpsync"), Some(991));
        assert_eq!(group_id(groups, "broken"), None);
        assert_eq!(group_id(groups, "panel"), None);
    }
}
