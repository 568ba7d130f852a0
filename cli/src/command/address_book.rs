//! `mfpsync import` and `mfpsync export`: address books of multifunction printers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mfpsync_addressbook::csv::{MAX_FILE_BYTES, Version};
use mfpsync_addressbook::{LeftOut, Notice};
use serde_json::{Value, json};

use super::Context;
use crate::book::plan::Plan;
use crate::book::{Target, export, import};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::units::count;

/// Who an import is recorded under.
const ACTOR: &str = "mfpsync";
/// Remarks shown before the rest is only counted.
const SHOWN_REMARKS: usize = 10;

/// Store an address-book file's entries in the group
///
/// The whole file is read first: when anything in it is wrong, line and column are named and nothing is
/// stored. Entries are matched by their id; what differs is changed, what is missing in the file stays.
/// Importing the same file again stores nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync import address-list.csv --scope shared --dry-run
  mfpsync import address-list.csv --scope shared
  mfpsync import mine.csv --scope user/alice")]
pub(crate) struct ImportArgs {
    /// AddressBook CSV file as a machine exports it
    file: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Write the group's entries as an address-book file
///
/// A list that was imported comes out as it went in: header, columns and order included. An existing
/// file is replaced as a whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync export address-list.csv --scope shared
  mfpsync export - --scope user/alice --format csv-3")]
pub(crate) struct ExportArgs {
    /// The file to write; `-` is standard output
    file: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Write this version as machines do, not as the imported file was
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// Whose book.
#[derive(Debug, Args)]
struct TargetArgs {
    /// Whose list: shared, user/ID or usergroup/ID
    #[arg(long)]
    scope: String,
    /// The kind of the entries [default: the scope's own address list]
    #[arg(long)]
    kind: Option<String>,
}

impl TargetArgs {
    fn target(&self) -> Result<Target, Failure> {
        Target::new(&self.scope, self.kind.as_deref()).map_err(Failure::Usage)
    }
}

/// Versions that can be written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// AddressBook CSV 0x0002
    #[value(name = "csv-2")]
    Csv2,
    /// AddressBook CSV 0x0003
    #[value(name = "csv-3")]
    Csv3,
}

impl From<Format> for Version {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv2 => Self::V2,
            Format::Csv3 => Self::V3,
        }
    }
}

/// Imports a file.
///
/// # Errors
/// An unusable file (nothing stored), or a write that failed on the way.
pub(crate) async fn import(context: &Context, args: ImportArgs) -> Result<Exit, Failure> {
    let target = args.target.target()?;
    let bytes = read(&args.file)?;
    let prepared = import::prepare(&context.sockets, &target, &bytes).await?;
    remark(context, &prepared.notices, Notice::to_string)?;
    let plan = prepared.plan;
    let summary = planned(&plan, &target);
    let json = plan_json(&plan, &prepared.notices);
    if args.dry_run {
        let mut json = json;
        json["stored"] = json!(null);
        context.out.answer(&format!("{summary}\nnothing was stored (--dry-run)"), &json)?;
        return Ok(Exit::Ok);
    }
    context.out.note(&summary)?;
    let progress = progress_bar(context, plan.entries());
    let stored = import::store(&context.sockets, plan, ACTOR, &progress).await;
    progress.finish_and_clear();
    let mut json = json;
    json["stored"] = json!(stored?);
    let entries = count(json["stored"].as_u64().unwrap_or_default(), "entry", "entries");
    context.out.answer(&format!("{entries} stored"), &json)?;
    Ok(Exit::Ok)
}

/// Reads a file up to one byte more than the limit, which the reader then names.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::BadInput(format!("read {}: {error}", path.display())))?;
    Ok(bytes)
}

fn progress_bar(context: &Context, entries: u64) -> ProgressBar {
    if context.out.json {
        return ProgressBar::hidden();
    }
    // Hides itself when standard error is no terminal.
    let bar = ProgressBar::new(entries);
    match ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left") {
        Ok(style) => bar.with_style(style),
        Err(_plain_style_will_do) => bar,
    }
}

fn planned(plan: &Plan, target: &Target) -> String {
    let others = match plan.untouched {
        0 => String::new(),
        others => format!("; {} not in the file stay as they are", count(others, "entry", "entries")),
    };
    format!(
        "{} {}: {} to add, {} to change, {} identical{others}",
        printable(&target.scope),
        printable(&target.kind),
        plan.added,
        plan.changed,
        plan.identical
    )
}

fn plan_json(plan: &Plan, notices: &[Notice]) -> Value {
    json!({
        "added": plan.added,
        "changed": plan.changed,
        "identical": plan.identical,
        "untouched": plan.untouched,
        "notices": notices.iter().map(Notice::to_string).collect::<Vec<_>>(),
    })
}

/// Notes to people; scripts find them in the answer.
fn remark<T>(context: &Context, remarks: &[T], text: impl Fn(&T) -> String) -> Result<(), Failure> {
    for remark in remarks.iter().take(SHOWN_REMARKS) {
        context.out.note(&format!("note: {}", printable(&text(remark))))?;
    }
    match remarks.len().saturating_sub(SHOWN_REMARKS) {
        0 => Ok(()),
        more => context.out.note(&format!("note: and {more} more of this kind")),
    }
}

/// Exports a book.
///
/// # Errors
/// Entries that no file can hold, or a file that cannot be written.
pub(crate) async fn export(context: &Context, args: ExportArgs) -> Result<Exit, Failure> {
    let target = args.target.target()?;
    let exported = export::export(&context.sockets, &target, args.format.map(Version::from)).await?;
    let left_out = |left: &LeftOut| format!("entry {}, field {}: {}", left.entry + 1, left.field, left.what);
    remark(context, &exported.left_out, left_out)?;
    if args.file == Path::new("-") {
        context.out.bytes(&exported.bytes)?;
        return Ok(Exit::Ok);
    }
    write(&args.file, &exported.bytes)?;
    let left_out: Vec<String> = exported.left_out.iter().map(left_out).collect();
    let json = json!({ "entries": exported.entries, "bytes": exported.bytes.len(), "left_out": left_out });
    let entries = count(exported.entries as u64, "entry", "entries");
    context.out.answer(&format!("{entries} written to {}", args.file.display()), &json)?;
    Ok(Exit::Ok)
}

/// Replaces the file as a whole; it holds personal data, so it is the owner's alone.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let durable = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory)?.sync_all()
    };
    durable().map_err(|source| Failure::File { action: "write", path: path.to_owned(), source })
}
