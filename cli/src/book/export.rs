//! An address book out of the group: entries in their file's order, around them what the file looked
//! like when it was imported.

use mfpsync_addressbook::csv::{self, Header, Version, WriteOptions};
use mfpsync_addressbook::{Entry, LeftOut};
use mfpsync_proto::local::{Field, Item};

use super::{Target, entry, layout};
use crate::command::item;
use crate::exit::Failure;
use crate::sockets::Sockets;

/// A file, and what it could not hold.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) bytes: Vec<u8>,
    pub(crate) entries: usize,
    pub(crate) left_out: Vec<LeftOut>,
}

/// Lists a book and writes it as a file; `version` sets aside the looks of the imported one.
///
/// # Errors
/// An unreachable daemon, or entries that no file can hold.
pub(crate) async fn export(
    sockets: &Sockets,
    target: &Target,
    version: Option<Version>,
) -> Result<Exported, Failure> {
    let items = item::list(sockets, &target.scope, &target.kind).await?;
    let looks = item::list(sockets, &target.scope, layout::KIND).await?;
    let key = layout::key(&target.scope);
    let is_it = |item: &Item| item.key.as_ref().is_some_and(|found| found.id == key.id);
    let looks = looks.into_iter().find(is_it).unwrap_or_default();
    file(&items, &looks.fields, version)
}

fn file(items: &[Item], looks: &[Field], version: Option<Version>) -> Result<Exported, Failure> {
    let mut entries: Vec<Entry> = items.iter().map(entry::entry).collect();
    layout::sort(&mut entries, looks);
    let machine_made = |version| WriteOptions::new(Header::address_list(version, ""));
    let options = match version {
        Some(version) => machine_made(version),
        None => layout::to_options(looks).unwrap_or_else(|| machine_made(Version::V2)),
    };
    let (bytes, left_out) = csv::write(&entries, &options)
        .map_err(|error| Failure::Failed(format!("write the address book: {error}")))?;
    Ok(Exported { bytes, entries: entries.len(), left_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::plan::Plan;
    use mfpsync_proto::local::edit::Edit as EditKind;

    /// Imports into nothing and exports again, the items in another order.
    fn round_trip(bytes: &[u8]) -> Exported {
        let (book, _notices) = csv::read(bytes).unwrap();
        let plan = Plan::new(&book, &Target::new("shared", None).unwrap(), &[], &[]);
        let item = |edit: mfpsync_proto::local::Edit| match edit.edit {
            Some(EditKind::Put(put)) => Item { key: put.key, fields: put.fields, ..Item::default() },
            other => panic!("not a put: {other:?}"),
        };
        let (mut items, looks): (Vec<_>, Vec<_>) = plan
            .edits
            .into_iter()
            .map(item)
            .partition(|item| item.key.as_ref().unwrap().kind != layout::KIND);
        items.sort_by(|a, b| a.key.as_ref().unwrap().id.cmp(&b.key.as_ref().unwrap().id));
        file(&items, &looks[0].fields, None).unwrap()
    }

    #[test]
    fn an_imported_list_is_exported_byte_for_byte() {
        for bytes in [
            include_bytes!("../../../tests/samples/address-list.csv").as_slice(),
            include_bytes!("../../../tests/samples/one-touch.csv").as_slice(),
        ] {
            let exported = round_trip(bytes);
            assert_eq!(exported.left_out, []);
            assert!(exported.bytes == bytes, "the exported file differs");
        }
    }

    #[test]
    fn a_book_that_never_was_a_file_is_exported_as_machines_write_it() {
        let exported = file(&[], &[], None).unwrap();
        assert!(exported.bytes.starts_with(b"# "), "no header");
        assert_eq!(exported.entries, 0);
    }
}
