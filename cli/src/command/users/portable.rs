//! `mfpsync users export` and `import`: one person's data as a JSON file, whatever its kinds.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use mfpsync_proto::local::edit::Edit as EditKind;
use mfpsync_proto::local::value::Value as Kind;
use mfpsync_proto::local::{Edit, Field, Item, ItemKey, Put, Value as FieldValue};
use mfpsync_proto::panel::StatusRequest;
use mfpsync_proto::records::UserRequest;
use serde_json::{Map, Value, json};

use crate::command::{Context, address_book, item};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::units::count;
use crate::sockets::within;
use crate::value;

const FORMAT: &str = "mfpsync-user";
const VERSION: u64 = 1;
/// A user of 1 MiB, generously written out.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Edits of one write, and about the bytes a write may hold.
const EDITS: usize = 100;
const WRITE_BYTES: usize = 512 << 10;

/// Write everything of one person to a JSON file
///
/// Kinds and fields this version does not know are in it as well. Sealed secrets are not: they are
/// named, with the id of their key. The file is the owner's alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users export alice alice.json
  mfpsync users export alice - | jq '.items | length'")]
pub(crate) struct ExportArgs {
    /// The user's id
    user: String,
    /// The file to write; `-` is standard output
    file: PathBuf,
}

/// Store an exported person's items again
///
/// Items are put as the file has them; what is not in the file stays. Use --as to store them for
/// another user.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users import alice.json
  mfpsync users import alice.json --as alice2")]
pub(crate) struct ImportArgs {
    /// A file written by `mfpsync users export`
    file: PathBuf,
    /// Store for this user instead
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

/// Exports a user.
///
/// # Errors
/// An unreachable daemon, or a file that cannot be written.
pub(super) async fn export(context: &Context, args: ExportArgs) -> Result<Exit, Failure> {
    let request = UserRequest { user: args.user.clone(), actor: String::new() };
    let items = within(context.sockets.timeout, "the whole export", async {
        let mut batches = context.sockets.records().await?.export_user(request).await?.into_inner();
        let mut items = Vec::new();
        while let Some(batch) = batches.message().await? {
            items.extend(batch.items);
        }
        Ok(items)
    });
    let (document, left_out) = document(&args.user, &items.await?);
    for left in &left_out {
        context.out.note(&format!("note: {}", printable(left)))?;
    }
    let bytes = format!("{document:#}\n").into_bytes();
    if args.file == Path::new("-") {
        context.out.bytes(&bytes)?;
        return Ok(Exit::Ok);
    }
    address_book::write(&args.file, &bytes)?;
    let number = document["items"].as_array().map_or(0, Vec::len);
    let text = format!("{} written to {}", count(number as u64, "item", "items"), args.file.display());
    context.out.answer(&text, &json!({ "items": number, "left_out": left_out }))?;
    Ok(Exit::Ok)
}

/// The file's content, and what could not be part of it.
fn document(user: &str, items: &[Item]) -> (Value, Vec<String>) {
    let mut left_out = Vec::new();
    let mut written = Vec::new();
    for item in items {
        let key = item.key.clone().unwrap_or_default();
        let mut fields = Map::new();
        for field in &item.fields {
            if let Some(FieldValue { value: Some(Kind::Sealed(_)) }) = &field.value {
                let sealed = value::to_json(field.value.as_ref());
                left_out.push(format!("{} {}: secret {} ({sealed})", key.kind, key.id, field.name));
            } else {
                fields.insert(field.name.clone(), value::to_json(field.value.as_ref()));
            }
        }
        // An item of secrets alone would come back empty.
        if !fields.is_empty() || item.fields.is_empty() {
            written.push(json!({ "kind": key.kind, "device": key.device, "id": key.id, "fields": fields }));
        }
    }
    let document = json!({
        "format": FORMAT, "version": VERSION, "user": user, "items": written, "left_out": left_out,
    });
    (document, left_out)
}

/// Imports a user.
///
/// # Errors
/// An unusable file (nothing stored), or a write that was refused on the way.
pub(super) async fn import(context: &Context, args: ImportArgs) -> Result<Exit, Failure> {
    let text = read(&args.file)?;
    let (named, puts) = parse(&text)
        .map_err(|why| Failure::BadInput(format!("{}: {why}; nothing was stored", args.file.display())))?;
    let user = args.user.unwrap_or(named);
    let (puts, left_out) = for_this_device(context, puts).await?;
    if left_out > 0 {
        let items = count(left_out, "item", "items");
        context.out.note(&format!("note: {items} left out: other devices have them for themselves"))?;
    }
    let total = puts.len() as u64;
    let mut stored = 0;
    for write in writes(&user, puts) {
        let size = write.len() as u64;
        item::write(&context.sockets, write, &args.actor)
            .await
            .map_err(|source| Failure::stopped_at(stored, total, source))?;
        stored += size;
    }
    let text = format!("{} stored for {}", count(stored, "item", "items"), printable(&user));
    context.out.answer(&text, &json!({ "user": user, "items": stored, "left_out": left_out }))?;
    Ok(Exit::Ok)
}

/// Without what devices have for themselves, this one excepted, and how much that is.
async fn for_this_device(context: &Context, puts: Vec<Put>) -> Result<(Vec<Put>, u64), Failure> {
    let device = |put: &Put| put.key.as_ref().map_or("", |key| &key.device).to_owned();
    if puts.iter().all(|put| device(put).is_empty()) {
        return Ok((puts, 0));
    }
    let mut panel = context.sockets.panel().await?;
    let own_id = context.sockets.call(panel.status(StatusRequest {})).await?.device_id;
    let (here, elsewhere): (Vec<Put>, Vec<Put>) =
        puts.into_iter().partition(|put| device(put).is_empty() || device(put) == own_id);
    Ok((here, elsewhere.len() as u64))
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| Failure::BadInput(format!("read {}: {error}", path.display())))?;
    Ok(text)
}

/// The user and the items of a file.
fn parse(text: &str) -> Result<(String, Vec<Put>), String> {
    let document: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    if document["format"] != FORMAT || document["version"] != VERSION {
        return Err(format!("not written by `mfpsync users export` of format version {VERSION}"));
    }
    let user = document["user"].as_str().ok_or("it names no user")?.to_owned();
    let items = document["items"].as_array().ok_or("it has no list of items")?;
    let put = |(at, item): (usize, &Value)| parse_item(item).map_err(|why| format!("item {}: {why}", at + 1));
    Ok((user, items.iter().enumerate().map(put).collect::<Result<_, _>>()?))
}

fn parse_item(item: &Value) -> Result<Put, String> {
    let text = |name: &str| item[name].as_str().map(str::to_owned).ok_or(format!("{name} is missing"));
    let fields = item["fields"].as_object().ok_or("fields are missing")?;
    let field = |(name, json): (&String, &Value)| {
        let value = value::from_json(json).map_err(|why| format!("field {name}: {why}"))?;
        Ok(Field { name: name.clone(), value: Some(FieldValue { value: Some(value) }) })
    };
    let fields = fields.iter().map(field).collect::<Result<Vec<_>, String>>()?;
    let key = ItemKey { scope: String::new(), kind: text("kind")?, device: text("device")?, id: text("id")? };
    Ok(Put { key: Some(key), fields })
}

/// Puts in writes that keep their limits.
fn writes(user: &str, puts: Vec<Put>) -> Vec<Vec<Edit>> {
    let mut writes: Vec<Vec<Edit>> = Vec::new();
    let mut bytes = usize::MAX;
    for mut put in puts {
        if let Some(key) = &mut put.key {
            key.scope = format!("user/{user}");
        }
        let size = size(&put);
        if bytes.saturating_add(size) > WRITE_BYTES || writes.last().is_none_or(|last| last.len() == EDITS) {
            writes.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(last) = writes.last_mut() {
            last.push(Edit { edit: Some(EditKind::Put(put)) });
        }
    }
    writes
}

/// About what an item takes.
fn size(put: &Put) -> usize {
    let field = |field: &Field| {
        let value = match field.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Kind::Text(text)) => text.len(),
            Some(Kind::Bytes(bytes)) => bytes.len(),
            Some(Kind::Set(set)) => set.texts.iter().map(|text| text.len() + 2).sum(),
            Some(Kind::Opaque(opaque)) => opaque.payload.len(),
            Some(Kind::Sealed(sealed)) => sealed.key_id.len() + sealed.r#box.len(),
            Some(Kind::Integer(_) | Kind::Flag(_)) | None => 16,
        };
        field.name.len() + value + 8
    };
    1024 + put.fields.iter().map(field).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mfpsync_proto::local::{Opaque, Sealed, TextSet};

    fn field(name: &str, kind: Kind) -> Field {
        Field { name: name.to_owned(), value: Some(FieldValue { value: Some(kind) }) }
    }

    fn item(kind: &str, fields: Vec<Field>) -> Item {
        let key =
            ItemKey { scope: "user/alice".into(), kind: kind.into(), device: String::new(), id: "1".into() };
        Item { key: Some(key), fields, ..Item::default() }
    }

    #[test]
    fn what_is_exported_comes_back_whole_and_secrets_are_named() {
        let fields = vec![
            field("a", Kind::Text("x".into())),
            field("b", Kind::Integer(-7)),
            field("c", Kind::Flag(true)),
            field("d", Kind::Bytes(vec![0, 255].into())),
            field("e", Kind::Set(TextSet { texts: vec!["1".into(), "2".into()] })),
            field("f", Kind::Opaque(Opaque { r#type: 99, payload: vec![1].into() })),
        ];
        let secret = Sealed { key_id: vec![7].into(), r#box: vec![9].into() };
        let items = [
            item("vendor.hologram", fields.clone()),
            item("keychain", vec![field("password", Kind::Sealed(secret))]),
            item("empty", Vec::new()),
        ];
        let (document, left_out) = document("alice", &items);
        assert_eq!(left_out.len(), 1);
        let (user, puts) = parse(&document.to_string()).unwrap();
        assert_eq!((user.as_str(), puts.len()), ("alice", 2), "the item of a secret alone stays behind");
        assert_eq!(puts[0].fields, fields);
        assert!(puts[1].fields.is_empty());
    }

    #[test]
    fn a_file_of_something_else_is_refused_as_a_whole() {
        for wrong in ["{}", "[]", "x", r#"{"format":"mfpsync-user","version":2,"user":"a","items":[]}"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let item =
            r#"{"format":"mfpsync-user","version":1,"user":"a","items":[{"kind":"k","device":"","id":"1"}]}"#;
        assert!(parse(item).unwrap_err().starts_with("item 1:"));
    }

    #[test]
    fn writes_keep_their_limits() {
        let put = |size: usize| Put {
            key: Some(ItemKey::default()),
            fields: vec![field("a", Kind::Text("x".repeat(size)))],
        };
        let lengths = |puts| writes("a", puts).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths((0..250).map(|_| put(1)).collect()), [100, 100, 50]);
        assert_eq!(lengths((0..10).map(|_| put(100 << 10)).collect()), [5, 5]);
    }
}
