//! ABK, LDIF and vCard through their doors: real files, broken files, made-up entries.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod abk;
mod ldif;
mod vcard;

use std::collections::BTreeMap;

use mfpsync_addressbook::{Entry, Notice, ReadError, Value};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../tests/samples/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn shown(notices: &[Notice]) -> Vec<String> {
    notices.iter().map(ToString::to_string).collect()
}

fn problems<T: std::fmt::Debug>(read: Result<T, ReadError>) -> Vec<String> {
    read.unwrap_err().problems.iter().map(ToString::to_string).collect()
}

fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::Text((*text).to_owned()));
    Entry { id: id.to_owned(), fields: fields.iter().map(text).collect() }
}

const UUID: &str = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// Class, texts and members by their place among all.
type Drawn = (&'static str, BTreeMap<&'static str, String>, Vec<Index>);

/// Entries of these classes and text fields; groups list some of all entries.
fn entries(
    classes: &'static [&'static str],
    fields: &'static [&'static str],
    text: impl Strategy<Value = String> + 'static,
) -> impl Strategy<Value = Vec<Entry>> {
    let draft = (select(classes), btree_map(select(fields), text, 0..6), vec(any::<Index>(), 0..4));
    (vec(draft, 0..8), btree_set(UUID, 8)).prop_map(|(drafts, ids)| {
        let ids: Vec<String> = ids.into_iter().take(drafts.len()).collect();
        let made = |((class, texts, members), id): (Drawn, &String)| {
            let mut made = entry(id, &[("class", class)]);
            made.fields.extend(texts.into_iter().map(|(name, text)| (name.to_owned(), Value::Text(text))));
            match class {
                "email" => {
                    _ = made
                        .fields
                        .entry("mail".to_owned())
                        .or_insert_with(|| Value::Text("a@example.com".to_owned()))
                }
                "fax" => {
                    made.fields.remove("mail");
                    made.fields.entry("number".to_owned()).or_insert_with(|| Value::Text("03".to_owned()));
                }
                _ => {}
            }
            if class == "group" && !members.is_empty() {
                let members = members.iter().map(|member| member.get(&ids).clone()).collect();
                made.fields.insert("members".to_owned(), Value::Set(members));
            }
            made
        };
        drafts.into_iter().zip(&ids).map(made).collect()
    })
}
