//! An address book out of the group: entries in their file's order, around them what the file looked
//! like when it was imported, or another format altogether.

use mfpsync_addressbook::abk::{self, CharSet};
use mfpsync_addressbook::csv::{self, Header, LineEnd, Version, WriteOptions};
use mfpsync_addressbook::{Entry, LeftOut, ldif, vcard};
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

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// AddressBook CSV as the imported file was, else as machines write it.
    AsImported,
    /// AddressBook CSV as machines write it.
    Csv(Version),
    /// ABK text in a character set.
    Abk(CharSet),
    /// LDIF.
    Ldif,
    /// vCard.
    Vcard(vcard::Version),
}

/// Lists a book and writes it as a file.
///
/// # Errors
/// An unreachable daemon, or entries that no file can hold.
pub(crate) async fn export(sockets: &Sockets, target: &Target, form: Form) -> Result<Exported, Failure> {
    let items = item::list(sockets, &target.scope, &target.kind).await?;
    let looks = item::list(sockets, &target.scope, layout::KIND).await?;
    let key = layout::key(&target.scope);
    let is_it = |item: &Item| item.key.as_ref().is_some_and(|found| found.id == key.id);
    let looks = looks.into_iter().find(is_it).unwrap_or_default();
    file(&items, &looks.fields, form)
}

fn file(items: &[Item], looks: &[Field], form: Form) -> Result<Exported, Failure> {
    let mut entries: Vec<Entry> = items.iter().map(entry::entry).collect();
    layout::sort(&mut entries, looks);
    let machine_made = |version| WriteOptions::new(Header::address_list(version, ""));
    let written = match form {
        Form::AsImported => {
            let options = layout::to_options(looks).unwrap_or_else(|| machine_made(Version::V2));
            csv::write(&entries, &options)
        }
        Form::Csv(version) => csv::write(&entries, &machine_made(version)),
        Form::Abk(charset) => abk::write(&entries, &abk::WriteOptions::new(charset)),
        Form::Ldif => ldif::write(&entries, LineEnd::Lf),
        Form::Vcard(version) => vcard::write(&entries, version, LineEnd::CrLf),
    };
    let (bytes, left_out) =
        written.map_err(|error| Failure::Failed(format!("write the address book: {error}")))?;
    Ok(Exported { bytes, entries: entries.len(), left_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::plan::Plan;
    use mfpsync_proto::local::edit::Edit as EditKind;

    /// Imports into nothing and exports again, the items in another order.
    fn round_trip(bytes: &[u8], form: Form) -> Exported {
        let (book, _notices) = mfpsync_addressbook::read(bytes).unwrap();
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
        file(&items, looks.first().map_or(&[], |item| &item.fields), form).unwrap()
    }

    #[test]
    fn an_imported_list_is_exported_byte_for_byte() {
        for bytes in [
            include_bytes!("../../../tests/samples/address-list.csv").as_slice(),
            include_bytes!("../../../tests/samples/one-touch.csv").as_slice(),
        ] {
            let exported = round_trip(bytes, Form::AsImported);
            assert_eq!(exported.left_out, []);
            assert!(exported.bytes == bytes, "the exported file differs");
        }
    }

    #[test]
    fn lists_of_other_formats_are_exported_with_what_they_hold() {
        for (bytes, form, entries) in [
            (
                include_bytes!("../../../tests/samples/address-list.abk").as_slice(),
                Form::Abk(CharSet::Utf8),
                160,
            ),
            (
                include_bytes!("../../../tests/samples/contacts.vcf").as_slice(),
                Form::Vcard(vcard::Version::V4),
                120,
            ),
        ] {
            let exported = round_trip(bytes, form);
            assert_eq!((exported.entries, exported.left_out), (entries, Vec::new()));
            let again = mfpsync_addressbook::read(&exported.bytes).unwrap().0;
            let mut found = again.entries().to_vec();
            let mut expected = mfpsync_addressbook::read(bytes).unwrap().0.entries().to_vec();
            found.sort_by(|a, b| a.id.cmp(&b.id));
            expected.sort_by(|a, b| a.id.cmp(&b.id));
            assert!(found == expected, "the entries differ");
        }
    }

    #[test]
    fn a_character_the_set_lacks_stops_an_export() {
        let item = Item {
            key: Some(Target::new("shared", None).unwrap().key("a")),
            fields: vec![
                crate::value::text_field("class", "email".to_owned()),
                crate::value::text_field("name", "山".to_owned()),
            ],
            ..Item::default()
        };
        let failure = file(&[item], &[], Form::Abk(CharSet::Wcp1252)).unwrap_err().to_string();
        assert!(failure.contains("U+5C71"), "{failure}");
    }

    #[test]
    fn a_book_that_never_was_a_file_is_exported_as_machines_write_it() {
        let exported = file(&[], &[], Form::AsImported).unwrap();
        assert!(exported.bytes.starts_with(b"# "), "no header");
        assert_eq!(exported.entries, 0);
    }
}
