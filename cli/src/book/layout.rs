//! What a file looks like around its entries, kept as one item so that an export gives the same file.
//!
//! Pure: options to fields and back. The item has the kind `address.book` and the id `header.<scope>` for a
//! CSV, `abk.<scope>` for ABK text; a book without one is exported as machines write it.

use std::cmp::Ordering;
use std::collections::HashMap;

use mfpsync_addressbook::csv::{self, Layout, LineEnd};
use mfpsync_addressbook::{Book, Entry, Format, abk, field};
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Field, Item, ItemKey, Value};

use crate::value::{text_field, text_of};

/// The kind of the item that keeps a file's looks.
pub(crate) const KIND: &str = "address.book";
/// How ids of the items begin.
const CSV: &str = "header";
const ABK: &str = "abk";
/// An item holds 64 KiB; the order of a longer list is its numbers' order.
const MAX_ORDER_BYTES: usize = 40 << 10;

/// A file's looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Looks {
    Csv(csv::WriteOptions),
    Abk(abk::WriteOptions),
}

impl Looks {
    /// Those of a file that was read; LDIF and vCard have none.
    pub(crate) fn of(book: &Book) -> Option<Self> {
        match book {
            Book::Csv(book) => Some(Self::Csv(book.options())),
            Book::Abk(book) => Some(Self::Abk(book.options())),
            Book::Ldif(_) | Book::Vcard(_) => None,
        }
    }

    /// The key of the item for one scope's book.
    pub(crate) fn key(&self, scope: &str) -> ItemKey {
        let format = match self {
            Self::Csv(_) => CSV,
            Self::Abk(_) => ABK,
        };
        ItemKey {
            scope: scope.to_owned(),
            kind: KIND.to_owned(),
            device: String::new(),
            id: format!("{format}.{scope}"),
        }
    }

    /// The item's fields: the looks, and the entries' order where their numbers do not give it.
    pub(crate) fn to_fields(&self, entries: &[Entry]) -> Vec<Field> {
        let mut fields = match self {
            Self::Csv(options) => csv_fields(options),
            Self::Abk(options) => abk_fields(options),
        };
        let order: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
        let numbers_give_it = entries.is_sorted_by(|a, b| by_number(a, b) != Ordering::Greater);
        if !numbers_give_it && order.iter().map(|id| id.len() + 3).sum::<usize>() <= MAX_ORDER_BYTES {
            fields.push(list_field("order", &order));
        }
        fields
    }
}

/// What a scope keeps of its files, by its items of [`KIND`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept<'a> {
    items: &'a [Item],
    scope: &'a str,
}

impl<'a> Kept<'a> {
    pub(crate) fn new(items: &'a [Item], scope: &'a str) -> Self {
        Self { items, scope }
    }

    /// Fields of a format's item; empty when there is none.
    fn fields(self, format: &str) -> &'a [Field] {
        let id = format!("{format}.{}", self.scope);
        let found = self.items.iter().find(|item| item.key.as_ref().is_some_and(|key| key.id == id));
        found.map_or(&[], |item| &item.fields)
    }

    /// How an imported CSV was written; nothing when none was, or by a version with other fields.
    pub(crate) fn csv(self) -> Option<csv::WriteOptions> {
        csv_options(self.fields(CSV))
    }

    /// How an imported ABK text was written.
    pub(crate) fn abk(self) -> Option<abk::WriteOptions> {
        abk_options(self.fields(ABK))
    }

    /// Sorts entries as the file of a format had them; newcomers follow by number.
    pub(crate) fn sort(self, entries: &mut [Entry], format: Format) {
        let (first, second) = if format == Format::Abk { (ABK, CSV) } else { (CSV, ABK) };
        let order = list(self.fields(first), "order").or_else(|| list(self.fields(second), "order"));
        sort(entries, &order.unwrap_or_default());
    }
}

fn csv_fields(options: &csv::WriteOptions) -> Vec<Field> {
    let layout = &options.layout;
    vec![
        integer_field("version", options.header.version.number().into()),
        list_field("lines", &options.header.lines),
        list_field("columns", &options.columns),
        flag_field("bom", layout.bom),
        flag_field("crlf", layout.line_end == LineEnd::CrLf),
        flag_field("trailing_comma", layout.trailing_comma),
        flag_field("final_line_end", layout.final_line_end),
        text_field("member_separator", layout.member_separator.to_string()),
    ]
}

fn csv_options(fields: &[Field]) -> Option<csv::WriteOptions> {
    let header = csv::Header { version: csv::Version::new(version(fields)?), lines: list(fields, "lines")? };
    let layout = Layout {
        bom: flag(fields, "bom")?,
        line_end: line_end(fields)?,
        trailing_comma: flag(fields, "trailing_comma")?,
        final_line_end: flag(fields, "final_line_end")?,
        member_separator: text_of(fields, "member_separator")?.chars().next()?,
    };
    let columns = list(fields, "columns")?;
    Some(csv::WriteOptions { header, columns, layout, defaults: Default::default() })
}

fn abk_fields(options: &abk::WriteOptions) -> Vec<Field> {
    vec![
        integer_field("version", options.header.version.into()),
        list_field("lines", &options.header.lines),
        flag_field("bom", options.bom),
        flag_field("crlf", options.line_end == LineEnd::CrLf),
    ]
}

fn abk_options(fields: &[Field]) -> Option<abk::WriteOptions> {
    Some(abk::WriteOptions {
        header: abk::Header { version: version(fields)?, lines: list(fields, "lines")? },
        bom: flag(fields, "bom")?,
        line_end: line_end(fields)?,
        defaults: Default::default(),
    })
}

fn version(fields: &[Field]) -> Option<u32> {
    match kind(fields, "version")? {
        Kind::Integer(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}

fn line_end(fields: &[Field]) -> Option<LineEnd> {
    Some(if flag(fields, "crlf")? { LineEnd::CrLf } else { LineEnd::Lf })
}

fn sort(entries: &mut [Entry], order: &[String]) {
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

    fn item(looks: &Looks, entries: &[Entry]) -> Item {
        Item { key: Some(looks.key("shared")), fields: looks.to_fields(entries), ..Item::default() }
    }

    fn csv_looks() -> csv::WriteOptions {
        let mut options = csv::WriteOptions::new(csv::Header::one_touch(csv::Version::V3, "Front, \"desk\""));
        options.defaults.clear();
        options.layout.bom = true;
        options.layout.line_end = LineEnd::Lf;
        options.layout.member_separator = ';';
        options
    }

    fn abk_looks() -> abk::WriteOptions {
        let header = abk::Header::new(abk::CharSet::ShiftJis, "Front");
        abk::WriteOptions { header, bom: false, line_end: LineEnd::Lf, defaults: Default::default() }
    }

    #[test]
    fn a_files_looks_survive_being_an_item() {
        let items = [item(&Looks::Csv(csv_looks()), &[]), item(&Looks::Abk(abk_looks()), &[])];
        let kept = Kept::new(&items, "shared");
        assert_eq!((kept.csv(), kept.abk()), (Some(csv_looks()), Some(abk_looks())));
        let other = Kept::new(&items, "user/alice");
        assert_eq!((other.csv(), other.abk()), (None, None));
    }

    #[test]
    fn the_order_is_kept_only_when_numbers_do_not_give_it() {
        let looks = Looks::Csv(csv_looks());
        let sorted = [entry("b", "9"), entry("a", "10")];
        assert!(text_of(&looks.to_fields(&sorted), "order").is_none());
        let shuffled = [entry("a", "10"), entry("b", "9")];
        let items = [item(&looks, &shuffled)];
        for format in Format::ALL {
            let mut found = vec![entry("c", "1"), entry("b", "9"), entry("a", "10")];
            Kept::new(&items, "shared").sort(&mut found, format);
            let ids: Vec<_> = found.iter().map(|entry| entry.id.as_str()).collect();
            assert_eq!(ids, ["a", "b", "c"]);
        }
    }

    #[test]
    fn a_damaged_item_is_no_header() {
        assert_eq!(csv_options(&[text_field("version", "two")]), None);
        assert_eq!(abk_options(&[text_field("version", "two")]), None);
    }
}
