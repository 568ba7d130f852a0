//! An address book out of the group: entries in their file's order, around them what the file looked
//! like when it was imported, or another format altogether.

use mfpsync_addressbook::abk::{self, CharSet};
use mfpsync_addressbook::csv::{self, Header, LineEnd, Version};
use mfpsync_addressbook::{Entry, Format, LeftOut, LeftOutKind, ldif, vcard};
use mfpsync_proto::local::Item;

use super::layout::{self, Kept};
use super::{Target, entry};
use crate::command::item;
use crate::exit::Failure;
use crate::render::units::count;
use crate::sockets::Sockets;

/// A file, and what it could not hold.
#[derive(Debug)]
pub(crate) struct Exported {
    pub(crate) bytes: Vec<u8>,
    /// In the file.
    pub(crate) entries: usize,
    /// Of the book, but not in the file: the format has nothing of their class.
    pub(crate) without: usize,
    pub(crate) left_out: Vec<LeftOut>,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// AddressBook CSV as the imported file was, else as machines write it.
    AsImported,
    /// AddressBook CSV as machines write it.
    Csv(Version),
    /// ABK text as the imported file was, else as machines write it; in this character set.
    Abk(Option<CharSet>),
    /// LDIF.
    Ldif,
    /// vCard.
    Vcard(vcard::Version),
}

impl Form {
    const fn format(self) -> Format {
        match self {
            Self::AsImported | Self::Csv(_) => Format::Csv,
            Self::Abk(_) => Format::Abk,
            Self::Ldif => Format::Ldif,
            Self::Vcard(_) => Format::Vcard,
        }
    }
}

/// Lists a book and writes it as a file.
///
/// # Errors
/// An unreachable daemon, or entries that no file can hold.
pub(crate) async fn export(sockets: &Sockets, target: &Target, form: Form) -> Result<Exported, Failure> {
    let items = item::list(sockets, &target.scope, &target.kind).await?;
    let looks = item::list(sockets, &target.scope, layout::KIND).await?;
    file(&items, Kept::new(&looks, &target.scope), form)
}

fn file(items: &[Item], looks: Kept<'_>, form: Form) -> Result<Exported, Failure> {
    let mut entries: Vec<Entry> = items.iter().map(entry::entry).collect();
    looks.sort(&mut entries, form.format());
    let machine_made = |version| csv::WriteOptions::new(Header::address_list(version, ""));
    let written = match form {
        Form::AsImported => csv::write(&entries, &looks.csv().unwrap_or_else(|| machine_made(Version::V2))),
        Form::Csv(version) => csv::write(&entries, &machine_made(version)),
        Form::Abk(charset) => abk::write(&entries, &abk_options(looks, charset)),
        Form::Ldif => ldif::write(&entries, LineEnd::Lf),
        Form::Vcard(version) => vcard::write(&entries, version, LineEnd::CrLf),
    };
    let (bytes, left_out) =
        written.map_err(|error| Failure::Failed(format!("write the address book: {error}")))?;
    let lost = left_out.iter().filter(|left_out| left_out.what == LeftOutKind::NoSuchClass).count();
    let written = entries.len() - lost;
    // A vCard file is its cards: without one it is empty, and no address book.
    if written == 0 && (lost > 0 || bytes.is_empty()) {
        return Err(Failure::Failed(format!(
            "0 of {} can be written as {}; nothing was written",
            count(entries.len() as u64, "entry", "entries"),
            form.format().name()
        )));
    }
    Ok(Exported { bytes, entries: written, without: lost, left_out })
}

/// As the imported file was, in its character set unless another is asked for; else as machines write it.
fn abk_options(looks: Kept<'_>, charset: Option<CharSet>) -> abk::WriteOptions {
    match (looks.abk(), charset) {
        (Some(mut options), Some(charset)) => {
            options.header = options.header.in_charset(charset);
            options.bom &= charset == CharSet::Utf8;
            options
        }
        (Some(options), None) => options,
        (None, charset) => abk::WriteOptions::new(charset.unwrap_or(CharSet::Utf8)),
    }
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
        file(&items, Kept::new(&looks, "shared"), form).unwrap()
    }

    #[test]
    fn an_imported_list_is_exported_byte_for_byte() {
        for (bytes, form) in [
            (include_bytes!("../../../tests/samples/address-list.csv").as_slice(), Form::AsImported),
            (include_bytes!("../../../tests/samples/one-touch.csv").as_slice(), Form::AsImported),
            (include_bytes!("../../../tests/samples/address-list.abk").as_slice(), Form::Abk(None)),
        ] {
            let exported = round_trip(bytes, form);
            assert_eq!(exported.left_out, []);
            assert!(exported.bytes == bytes, "the exported file differs");
        }
    }

    #[test]
    fn lists_of_other_formats_are_exported_with_what_they_hold() {
        for (bytes, form, entries) in [
            (
                include_bytes!("../../../tests/samples/address-list.abk").as_slice(),
                Form::Abk(Some(CharSet::ShiftJis)),
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
        let failure = file(&[item], none(), Form::Abk(Some(CharSet::Wcp1252))).unwrap_err().to_string();
        assert!(failure.contains("U+5C71"), "{failure}");
    }

    #[test]
    fn a_book_that_never_was_a_file_is_exported_as_machines_write_it() {
        for form in [Form::AsImported, Form::Abk(None), Form::Ldif] {
            let exported = file(&[], none(), form).unwrap();
            assert_eq!(exported.entries, 0);
            assert_eq!(mfpsync_addressbook::read(&exported.bytes).unwrap().0.entries(), []);
        }
    }

    #[test]
    fn a_file_without_any_of_the_entries_is_not_written() {
        let folder = Item {
            key: Some(Target::new("shared", None).unwrap().key("a")),
            fields: vec![crate::value::text_field("class", "folder".to_owned())],
            ..Item::default()
        };
        for form in [Form::Ldif, Form::Vcard(vcard::Version::V3)] {
            let failure = file(std::slice::from_ref(&folder), none(), form).unwrap_err();
            assert!(failure.to_string().contains("0 of 1 entry"), "{failure}");
            assert_eq!(failure.exit(), crate::exit::Exit::Refused);
        }
        assert!(file(&[], none(), Form::Vcard(vcard::Version::V4)).is_err(), "an empty file is no vCard");
        let text = crate::value::text_field;
        let mail = Item {
            key: Some(Target::new("shared", None).unwrap().key("b")),
            fields: vec![text("class", "email".to_owned()), text("mail", "a@example.com".to_owned())],
            ..Item::default()
        };
        let exported = file(&[folder.clone(), mail], none(), Form::Ldif).unwrap();
        assert_eq!((exported.entries, exported.without), (1, 1));
        let exported = file(&[folder], none(), Form::AsImported).unwrap();
        assert_eq!((exported.entries, exported.without), (1, 0));
    }

    #[test]
    fn an_own_header_stays_in_another_character_set() {
        let bytes = include_bytes!("../../../tests/samples/address-list.abk");
        let named =
            String::from_utf8_lossy(bytes).replacen("SubAddressBookName:", "SubAddressBookName: Front", 1);
        let exported = round_trip(named.as_bytes(), Form::Abk(Some(CharSet::ShiftJis)));
        let text = String::from_utf8_lossy(&exported.bytes);
        assert!(text.contains("SubAddressBookName: Front") && text.contains("CharSet: SHIFT_JIS"), "{text}");
        assert!(!text.contains("UTF-8"), "{text}");
    }

    fn none() -> Kept<'static> {
        Kept::new(&[], "shared")
    }
}
