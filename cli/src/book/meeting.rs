//! Which stored entry an entry of a file is. Pure.
//!
//! An id that both know decides. Among the rest, entries for the same destination (their [`NaturalKey`]) meet, each
//! once, in the order of the stored ids: a list that holds a destination twice keeps it twice. Who meets takes the
//! stored id, and members of groups follow. The same rule as when a device joins.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use mfpsync_addressbook::{Entry, NaturalKey, Value, field};
use mfpsync_proto::local::Item;

use super::entry;

/// The file's entries under the ids of those they meet.
pub(super) fn met<'a>(entries: &'a [Entry], present: &[Item]) -> Cow<'a, [Entry]> {
    let in_file: HashSet<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let mut stored: Vec<Entry> = present.iter().map(entry::entry).collect();
    stored.sort_by(|one, other| one.id.cmp(&other.id));
    let there: HashSet<&str> = stored.iter().map(|entry| entry.id.as_str()).collect();
    let mut free: HashMap<NaturalKey, VecDeque<&str>> = HashMap::new();
    for entry in stored.iter().filter(|entry| !in_file.contains(entry.id.as_str())) {
        if let Some(natural) = entry.natural_key() {
            free.entry(natural).or_default().push_back(&entry.id);
        }
    }
    let strangers = entries.iter().filter(|entry| !there.contains(entry.id.as_str()));
    let renamed: HashMap<&str, &str> = strangers
        .filter_map(|entry| Some((entry.id.as_str(), free.get_mut(&entry.natural_key()?)?.pop_front()?)))
        .collect();
    if renamed.is_empty() {
        return Cow::Borrowed(entries);
    }
    let name = |id: &str| (*renamed.get(id).unwrap_or(&id)).to_owned();
    let follow = |entry: &Entry| {
        let mut fields = entry.fields.clone();
        if let Some(Value::Set(members)) = fields.get_mut(field::MEMBERS) {
            *members = members.iter().map(|id| name(id)).collect();
        }
        Entry { id: name(&entry.id), fields }
    };
    entries.iter().map(follow).collect()
}

#[cfg(test)]
mod tests {
    use mfpsync_proto::local::ItemKey;

    use super::*;

    fn entry(id: &str, class: &str, mail: &str, members: &[&str]) -> Entry {
        let mut fields = std::collections::BTreeMap::from([
            (field::CLASS.to_owned(), Value::Text(class.to_owned())),
            (field::MAIL.to_owned(), Value::Text(mail.to_owned())),
        ]);
        if !members.is_empty() {
            let members = members.iter().map(|&id| id.to_owned()).collect();
            fields.insert(field::MEMBERS.to_owned(), Value::Set(members));
        }
        Entry { id: id.to_owned(), fields }
    }

    fn stored(entry: &Entry) -> Item {
        let key = ItemKey { id: entry.id.clone(), ..ItemKey::default() };
        Item { key: Some(key), fields: entry::fields(entry), ..Item::default() }
    }

    #[test]
    fn entries_meet_by_id_and_else_by_destination_each_once() {
        let present: Vec<Item> = [
            entry("s1", "email", "ann@example.com", &[]),
            entry("s2", "email", "ann@example.com", &[]),
            entry("both", "email", "bob@example.com", &[]),
        ]
        .iter()
        .map(stored)
        .collect();
        let file = [
            entry("f1", "email", "ann@EXAMPLE.com", &[]),
            entry("both", "email", "other@example.com", &[]),
            entry("f2", "email", "ann@example.com", &[]),
            entry("f3", "email", "ann@example.com", &[]),
            entry("f4", "email", "bob@example.com", &[]),
            entry("team", "group", "", &["f1", "f3", "both"]),
        ];
        let met = met(&file, &present);
        let ids: Vec<&str> = met.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["s1", "both", "s2", "f3", "f4", "team"], "`both` is taken by its id");
        let members = met[5].set(field::MEMBERS).unwrap();
        assert_eq!(members.iter().map(String::as_str).collect::<Vec<_>>(), ["both", "f3", "s1"]);
    }

    #[test]
    fn a_file_without_strangers_is_taken_as_it_is() {
        let file = [entry("s1", "email", "ann@example.com", &[])];
        let present = [stored(&entry("s1", "email", "bob@example.com", &[]))];
        assert!(matches!(met(&file, &present), Cow::Borrowed(_)));
    }
}
