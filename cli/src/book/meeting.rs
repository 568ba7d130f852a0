//! Which stored entry an entry of a file is. Pure.
//!
//! An id that both know decides. Among the rest, entries for the same destination (their natural key) meet, each
//! once, in the order of the stored ids: a list that holds a destination twice keeps it twice. Who meets takes the
//! stored id, and members of groups follow. The same rule as when a device joins. Entries without destination, groups
//! above all, meet when they are the same: files have no place for every id, and a list that comes back must not
//! double its groups.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;

use mfpsync_addressbook::{Entry, Value, field};
use mfpsync_proto::local::Item;

use super::entry;

/// Groups within groups that are followed.
const NESTING: usize = 8;

/// The file's entries under the ids of those they meet.
pub(super) fn met<'a>(entries: &'a [Entry], present: &[Item]) -> Cow<'a, [Entry]> {
    let mut stored: Vec<Entry> = present.iter().map(entry::entry).collect();
    stored.sort_by(|one, other| one.id.cmp(&other.id));
    let (in_file, there) = (ids(entries), ids(&stored));
    let free: Vec<&Entry> = stored.iter().filter(|entry| !in_file.contains(entry.id.as_str())).collect();
    let strangers: Vec<&Entry> = entries.iter().filter(|entry| !there.contains(entry.id.as_str())).collect();
    let mut renamed = Renamed::new();
    pair(&strangers, &free, Entry::natural_key, Entry::natural_key, &mut renamed);
    for _ in 0..NESTING {
        let before = renamed.clone();
        let known = renamed.len();
        pair(
            &strangers,
            &free,
            |entry| content(entry, &before),
            |entry| content(entry, &Renamed::new()),
            &mut renamed,
        );
        if renamed.len() == known {
            break;
        }
    }
    if renamed.is_empty() {
        return Cow::Borrowed(entries);
    }
    let follow = |entry: &Entry| {
        let mut fields = entry.fields.clone();
        if let Some(Value::Set(members)) = fields.get_mut(field::MEMBERS) {
            *members = members.iter().map(|id| named(id, &renamed).to_owned()).collect();
        }
        Entry { id: named(&entry.id, &renamed).to_owned(), fields }
    };
    entries.iter().map(follow).collect()
}

/// Ids of the file, and the stored ones they stand for.
type Renamed<'a> = HashMap<&'a str, &'a str>;

fn ids(entries: &[Entry]) -> HashSet<&str> {
    entries.iter().map(|entry| entry.id.as_str()).collect()
}

fn named<'a>(id: &'a str, renamed: &Renamed<'a>) -> &'a str {
    renamed.get(id).copied().unwrap_or(id)
}

/// Pairs those of one key that have no partner yet, each once.
fn pair<'a, K: Eq + Hash>(
    strangers: &[&'a Entry],
    free: &[&'a Entry],
    key_in_file: impl Fn(&'a Entry) -> Option<K>,
    key_there: impl Fn(&'a Entry) -> Option<K>,
    renamed: &mut Renamed<'a>,
) {
    let taken: HashSet<&str> = renamed.values().copied().collect();
    let mut waiting: HashMap<K, VecDeque<&str>> = HashMap::new();
    for entry in free.iter().filter(|entry| !taken.contains(entry.id.as_str())) {
        if let Some(key) = key_there(entry) {
            waiting.entry(key).or_default().push_back(&entry.id);
        }
    }
    for entry in strangers {
        if renamed.contains_key(entry.id.as_str()) {
            continue;
        }
        let partner = key_in_file(entry).and_then(|key| waiting.get_mut(&key)?.pop_front());
        if let Some(id) = partner {
            renamed.insert(&entry.id, id);
        }
    }
}

/// What tells an entry without destination from others: its shared texts and its members, by their stored ids.
type Content<'a> = ([Option<&'a str>; 6], BTreeSet<&'a str>);

fn content<'a>(entry: &'a Entry, renamed: &Renamed<'a>) -> Option<Content<'a>> {
    const TEXTS: [&str; 6] =
        [field::CLASS, field::NAME, field::MAIL, field::NUMBER, field::HOST, field::PATH];
    let members = entry.set(field::MEMBERS).into_iter().flatten();
    let members = members.map(|id| named(id, renamed)).collect();
    entry.natural_key().is_none().then(|| (TEXTS.map(|name| entry.text(name)), members))
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

    #[test]
    fn groups_of_the_same_name_and_members_meet_also_within_groups() {
        let group = |id: &str, name: &str, members: &[&str]| {
            let mut group = entry(id, "group", "", members);
            group.fields.insert("name".to_owned(), Value::Text(name.to_owned()));
            group
        };
        let present: Vec<Item> = [
            entry("s1", "email", "ann@example.com", &[]),
            group("s2", "team", &["s1"]),
            group("s3", "all", &["s2"]),
            group("s4", "other", &["s1"]),
        ]
        .iter()
        .map(stored)
        .collect();
        let file = [
            group("f3", "all", &["f2"]),
            group("f2", "team", &["f1"]),
            group("f5", "team", &["f1"]),
            group("f4", "other", &["f1", "f2"]),
            entry("f1", "email", "ann@example.com", &[]),
        ];
        let met = met(&file, &present);
        let ids: Vec<&str> = met.iter().map(|entry| entry.id.as_str()).collect();
        assert_eq!(ids, ["s3", "s2", "f5", "f4", "s1"], "a group twice, and one of other members, are new");
    }
}
