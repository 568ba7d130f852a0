//! What a file looks like around its entries, kept as one item so that an export gives the same file.
//!
//! Pure: options to fields and back. The item has the kind `address.book` and the id `header.<scope>`;
//! a book without one is exported as machines write it.

use std::cmp::Ordering;
use std::collections::HashMap;

use mfpsync_addressbook::csv::{Header, Layout, LineEnd, Version, WriteOptions};
use mfpsync_addressbook::{Entry, field};
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Field, ItemKey, Value};

use crate::value::{text_field, text_of};

/// The kind of the item that keeps a file's looks.
pub(crate) const KIND: &str = "address.book";
/// An item holds 64 KiB; the order of a longer list is its numbers' order.
const MAX_ORDER_BYTES: usize = 40 << 10;

/// The key of the item for one scope's book.
pub(crate) fn key(scope: &str) -> ItemKey {
    let id = format!("header.{scope}");
    ItemKey { scope: scope.to_owned(), kind: KIND.to_owned(), device: String::new(), id }
}

/// The fields that describe a file: its options, and its entries' order unless their numbers give it.
pub(crate) fn to_fields(options: &WriteOptions, entries: &[Entry]) -> Vec<Field> {
    let layout = &options.layout;
    let mut fields = vec![
        integer_field("version", options.header.version.number().into()),
        list_field("lines", &options.header.lines),
        list_field("columns", &options.columns),
        flag_field("bom", layout.bom),
        flag_field("crlf", layout.line_end == LineEnd::CrLf),
        flag_field("trailing_comma", layout.trailing_comma),
        flag_field("final_line_end", layout.final_line_end),
        text_field("member_separator", layout.member_separator.to_string()),
    ];
    let order: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    let numbers_give_it = entries.is_sorted_by(|a, b| by_number(a, b) != Ordering::Greater);
    if !numbers_give_it && order.iter().map(|id| id.len() + 3).sum::<usize>() <= MAX_ORDER_BYTES {
        fields.push(list_field("order", &order));
    }
    fields
}

/// The options such fields describe; nothing when they are not what this version writes.
pub(crate) fn to_options(fields: &[Field]) -> Option<WriteOptions> {
    let version = match kind(fields, "version")? {
        Kind::Integer(number) => Version::new(u32::try_from(*number).ok()?),
        _ => return None,
    };
    let header = Header { version, lines: list(fields, "lines")? };
    let layout = Layout {
        bom: flag(fields, "bom")?,
        line_end: if flag(fields, "crlf")? { LineEnd::CrLf } else { LineEnd::Lf },
        trailing_comma: flag(fields, "trailing_comma")?,
        final_line_end: flag(fields, "final_line_end")?,
        member_separator: text_of(fields, "member_separator")?.chars().next()?,
    };
    Some(WriteOptions { header, columns: list(fields, "columns")?, layout, defaults: Default::default() })
}

/// Sorts entries as their file had them; newcomers follow by number.
pub(crate) fn sort(entries: &mut [Entry], fields: &[Field]) {
    let order = list(fields, "order").unwrap_or_default();
    let places: HashMap<&str, usize> = order.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
    let place = |entry: &Entry| places.get(entry.id.as_str()).copied().unwrap_or(usize::MAX);
    entries.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| by_number(a, b)));
}

/// By index number, then id; entries without a number come last.
fn by_number(a: &Entry, b: &Entry) -> Ordering {
    let number = |entry: &Entry| {
        entry.text(field::INDEX).and_then(|index| index.trim().parse::<u32>().ok()).unwrap_or(u32::MAX)
    };
    number(a).cmp(&number(b)).then_with(|| a.id.cmp(&b.id))
}

fn kind<'a>(fields: &'a [Field], name: &str) -> Option<&'a Kind> {
    fields.iter().find(|field| field.name == name)?.value.as_ref()?.value.as_ref()
}

fn flag(fields: &[Field], name: &str) -> Option<bool> {
    match kind(fields, name)? {
        Kind::Flag(flag) => Some(*flag),
        _ => None,
    }
}

/// A list is a JSON array in a text: a set would lose its order.
fn list(fields: &[Field], name: &str) -> Option<Vec<String>> {
    let array: serde_json::Value = serde_json::from_str(text_of(fields, name)?).ok()?;
    array.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

fn list_field(name: &str, texts: &[String]) -> Field {
    text_field(name, serde_json::json!(texts).to_string())
}

fn flag_field(name: &str, flag: bool) -> Field {
    Field { name: name.to_owned(), value: Some(Value { value: Some(Kind::Flag(flag)) }) }
}

fn integer_field(name: &str, integer: i64) -> Field {
    Field { name: name.to_owned(), value: Some(Value { value: Some(Kind::Integer(integer)) }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_addressbook::Value as EntryValue;

    fn entry(id: &str, index: &str) -> Entry {
        let fields = [(field::INDEX.to_owned(), EntryValue::Text(index.to_owned()))].into();
        Entry { id: id.to_owned(), fields }
    }

    #[test]
    fn a_files_looks_survive_being_an_item() {
        let mut options = WriteOptions::new(Header::one_touch(Version::V3, "Front, \"desk\""));
        options.defaults.clear();
        options.layout.bom = true;
        options.layout.line_end = LineEnd::Lf;
        options.layout.member_separator = ';';
        assert_eq!(to_options(&to_fields(&options, &[])), Some(options));
    }

    #[test]
    fn the_order_is_kept_only_when_numbers_do_not_give_it() {
        let options = WriteOptions::new(Header::address_list(Version::V2, ""));
        let sorted = [entry("b", "9"), entry("a", "10")];
        assert!(text_of(&to_fields(&options, &sorted), "order").is_none());
        let shuffled = [entry("a", "10"), entry("b", "9")];
        let fields = to_fields(&options, &shuffled);
        let mut found = vec![entry("c", "1"), entry("b", "9"), entry("a", "10")];
        sort(&mut found, &fields);
        let ids: Vec<_> = found.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
    }

    #[test]
    fn a_damaged_item_is_no_header() {
        assert_eq!(to_options(&[text_field("version", "two")]), None);
    }
}
