//! `mfpsync import` and `mfpsync export`: address books of multifunction printers.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mfpsync_addressbook::abk::CharSet;
use mfpsync_addressbook::csv::{MAX_FILE_BYTES, Version};
use mfpsync_addressbook::{Format, LeftOut, Notice, vcard};
use serde_json::{Value, json};

use super::Context;
use crate::book::export::{Exported, Form};
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
/// AddressBook CSV, ABK text, LDIF and vCard are told apart by their content. The whole file is read
/// first: when anything in it is wrong, line and column are named and nothing is
/// stored. Entries are matched by their id, else by their destination; what differs is changed, what is
/// missing in the file stays.
/// Importing the same file again stores nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync import address-list.csv --scope shared --dry-run
  mfpsync import address-list.csv --scope shared
  mfpsync import directory.ldif --scope shared --format ldif
  mfpsync import mine.vcf --scope user/alice")]
pub(crate) struct ImportArgs {
    /// The file, as a machine, a directory or an address book exports it
    file: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Read it as this format [default: the one its content tells]
    #[arg(long, value_enum)]
    format: Option<ReadFormat>,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Write the group's entries as an address-book file
///
/// A CSV or ABK text that was imported comes out as it went in: header, columns and order included. The
/// file's suffix (.csv, .abk, .ldif, .vcf) tells the format, and what that format cannot hold is named;
/// where it can hold none of the entries, nothing is written. An existing file is replaced as a whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync export address-list.csv --scope shared
  mfpsync export address-list.abk --scope shared --charset shift_jis
  mfpsync export contacts.vcf --scope user/alice --format vcard-3
  mfpsync export - --scope user/alice --format csv-3")]
pub(crate) struct ExportArgs {
    /// The file to write; `-` is standard output
    file: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// Write this format [default: by the suffix, else the CSV as it was imported]
    #[arg(long, value_enum)]
    format: Option<WriteFormat>,
    /// Character set of ABK text [default: the imported file's, else utf-8]
    #[arg(long, value_enum)]
    charset: Option<CharSetName>,
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

/// Formats that can be read.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadFormat {
    /// The vendor's AddressBook CSV
    Csv,
    /// The vendor's ABK text
    Abk,
    /// LDIF of a directory
    Ldif,
    /// vCard 3.0 or 4.0
    Vcard,
}

impl From<ReadFormat> for Format {
    fn from(format: ReadFormat) -> Self {
        match format {
            ReadFormat::Csv => Self::Csv,
            ReadFormat::Abk => Self::Abk,
            ReadFormat::Ldif => Self::Ldif,
            ReadFormat::Vcard => Self::Vcard,
        }
    }
}

/// Formats and versions that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WriteFormat {
    /// AddressBook CSV 0x0002 as machines write it
    #[value(name = "csv-2")]
    Csv2,
    /// AddressBook CSV 0x0003 as machines write it
    #[value(name = "csv-3")]
    Csv3,
    /// The vendor's ABK text
    Abk,
    /// LDIF of people and groups
    Ldif,
    /// vCard 4.0
    Vcard,
    /// vCard 3.0
    #[value(name = "vcard-3")]
    Vcard3,
}

/// Character sets of ABK text.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum CharSetName {
    /// All characters
    #[value(name = "utf-8")]
    Utf8,
    /// Western European
    Wcp1252,
    /// Japanese
    #[value(name = "shift_jis")]
    ShiftJis,
}

impl From<CharSetName> for CharSet {
    fn from(name: CharSetName) -> Self {
        match name {
            CharSetName::Utf8 => Self::Utf8,
            CharSetName::Wcp1252 => Self::Wcp1252,
            CharSetName::ShiftJis => Self::ShiftJis,
        }
    }
}

/// What to write: as asked for, else as the file's name says.
fn form(file: &Path, format: Option<WriteFormat>, charset: Option<CharSetName>) -> Result<Form, Failure> {
    let form = match (format, Format::of_name(file)) {
        (Some(WriteFormat::Csv2), _) => Form::Csv(Version::V2),
        (Some(WriteFormat::Csv3), _) => Form::Csv(Version::V3),
        (Some(WriteFormat::Abk), _) | (None, Some(Format::Abk)) => Form::Abk(charset.map(CharSet::from)),
        (Some(WriteFormat::Ldif), _) | (None, Some(Format::Ldif)) => Form::Ldif,
        (Some(WriteFormat::Vcard), _) | (None, Some(Format::Vcard)) => Form::Vcard(vcard::Version::V4),
        (Some(WriteFormat::Vcard3), _) => Form::Vcard(vcard::Version::V3),
        (None, Some(Format::Csv) | None) => Form::AsImported,
    };
    if charset.is_some() && !matches!(form, Form::Abk(_)) {
        return Err(Failure::Usage(
            "--charset is for ABK text alone; the other formats are UTF-8".to_owned(),
        ));
    }
    Ok(form)
}

/// Imports a file.
///
/// # Errors
/// An unusable file (nothing stored), or a write that failed on the way.
pub(crate) async fn import(context: &Context, args: ImportArgs) -> Result<Exit, Failure> {
    let target = args.target.target()?;
    let bytes = read(&args.file)?;
    let prepared = import::prepare(&context.sockets, &target, &bytes, args.format.map(Format::from)).await?;
    remark(context, &prepared.notices, Notice::to_string)?;
    let plan = prepared.plan;
    let summary = planned(&plan, &target);
    let json = plan_json(&plan, prepared.format, &prepared.notices);
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

fn plan_json(plan: &Plan, format: Format, notices: &[Notice]) -> Value {
    json!({
        "format": format.name(),
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
    let form = form(&args.file, args.format, args.charset)?;
    let exported = export::export(&context.sockets, &target, form).await?;
    let left_out = |left: &LeftOut| format!("entry {}, field {}: {}", left.entry + 1, left.field, left.what);
    remark(context, &exported.left_out, left_out)?;
    if args.file == Path::new("-") {
        context.out.bytes(&exported.bytes)?;
        return Ok(Exit::Ok);
    }
    write(&args.file, &exported.bytes)?;
    let left_out: Vec<String> = exported.left_out.iter().map(left_out).collect();
    let json = json!({
        "entries": exported.entries,
        "entries_left_out": exported.without,
        "bytes": exported.bytes.len(),
        "left_out": left_out,
    });
    context.out.answer(&format!("{} written to {}", entries_of(&exported), args.file.display()), &json)?;
    Ok(Exit::Ok)
}

/// How many entries are in the file, and of how many where that is not all.
fn entries_of(exported: &Exported) -> String {
    let all = count((exported.entries + exported.without) as u64, "entry", "entries");
    match exported.without {
        0 => all,
        without => format!("{} of {all} ({without} have no place in this format)", exported.entries),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_says_how_many_entries_it_left_out() {
        let exported =
            |entries, without| Exported { bytes: Vec::new(), entries, without, left_out: Vec::new() };
        assert_eq!(entries_of(&exported(200, 0)), "200 entries");
        assert_eq!(entries_of(&exported(140, 60)), "140 of 200 entries (60 have no place in this format)");
    }

    #[test]
    fn the_name_tells_the_format_unless_one_is_asked_for() {
        for (name, format, expected) in [
            ("a.csv", None, Form::AsImported),
            ("-", None, Form::AsImported),
            ("a.abk", None, Form::Abk(None)),
            ("a.ldif", None, Form::Ldif),
            ("a.vcf", None, Form::Vcard(vcard::Version::V4)),
            ("a.vcf", Some(WriteFormat::Csv3), Form::Csv(Version::V3)),
            ("-", Some(WriteFormat::Vcard3), Form::Vcard(vcard::Version::V3)),
        ] {
            assert_eq!(form(Path::new(name), format, None).unwrap(), expected, "{name}");
        }
        let charset = Some(CharSetName::ShiftJis);
        assert_eq!(form(Path::new("a.abk"), None, charset).unwrap(), Form::Abk(Some(CharSet::ShiftJis)));
        assert!(form(Path::new("a.csv"), None, charset).is_err());
    }
}
