//! `mfpsync backup`: archives of the group on an SMB share, and coming back from one.
//!
//! What takes long is a job of the daemon's, which goes on whether or not anybody watches; Ctrl-C ends the watching alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use mfpsync_proto::backup::{
    ArchivesRequest, BeginRequest, BringBackRequest, CancelRequest, Dialect, DrillRequest, Encryption,
    ForgetRequest, Job, Keep, Key, NewKeyRequest, RestoreRequest, Schedule, SetRequest, SettingsReply,
    SettingsRequest, Share, TestRequest, WatchRequest,
};
use serde_json::json;

use super::{Context, now_unix_millis};
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::kit::Kit;
use crate::output::printable;
use crate::render::backup as render;
use crate::render::units::{count, size};
use crate::secret::{self, Secret};
use crate::secret_file::SecretFile;

/// A file server that is slow, or behind a slow network.
const SHARE_PATIENCE: Duration = Duration::from_secs(120);

/// Archives of the group on an SMB share: set, make, list, prove, restore
#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    Status(StatusArgs),
    Set(SetArgs),
    Test(TestArgs),
    Key(KeyFileArgs),
    Now(NowArgs),
    List(ListArgs),
    Drill(DrillArgs),
    Preview(PreviewArgs),
    Restore(RestoreArgs),
    BringBack(BringBackArgs),
    Watch(WatchArgs),
    Cancel(CancelArgs),
    Forget(ForgetArgs),
}

/// Show what is set, the newest archive, and what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup status
  mfpsync backup status --json | jq .newest.made_unix_millis")]
pub(crate) struct StatusArgs {}

/// Set where archives go, for whom they are sealed, when they are made, which are kept
///
/// What is not named stays as it is. The password is bound to host, port, share, user, domain, --smb and
/// --encryption: when one of them changes, it is forgotten, and asked for again. Archives that are made by
/// themselves are sealed for recipients, so that nothing on this device opens them (`mfpsync backup key`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup set --host nas.example.com --share backup --folder printers --user printer
  mfpsync backup set --recipient age1qf... --every 24 --at 02:30
  mfpsync backup set --keep-newest 3 --keep-days 7 --keep-weeks 5 --keep-months 12
  mfpsync backup set --password-file secret.txt
  mfpsync backup set --every 0")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    share: ShareArgs,
    /// An age recipient (age1...) for whom archives are sealed; may be given several times, replaces all
    #[arg(long = "recipient", value_name = "AGE1")]
    recipients: Vec<String>,
    /// Hours from one archive to the next, 1 to 168; 0: none is made by itself
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(0..=168))]
    every: Option<u32>,
    /// Time of the day, UTC, from which they are counted
    #[arg(long, value_name = "HH:MM", requires = "every", value_parser = minute)]
    at: Option<u32>,
    #[command(flatten)]
    keep: KeepArgs,
}

#[derive(Debug, Args)]
struct KeepArgs {
    /// Keep the newest N archives
    #[arg(long, value_name = "N")]
    keep_newest: Option<u32>,
    /// Keep the newest of each of the last N days that have one
    #[arg(long, value_name = "N")]
    keep_days: Option<u32>,
    /// Of the last N weeks
    #[arg(long, value_name = "N")]
    keep_weeks: Option<u32>,
    /// Of the last N months
    #[arg(long, value_name = "N")]
    keep_months: Option<u32>,
}

#[derive(Debug, Args)]
struct ShareArgs {
    /// Name or address of the file server
    #[arg(long)]
    host: Option<String>,
    /// Its TCP port [default: 445]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Name of the share
    #[arg(long)]
    share: Option<String>,
    /// Folder in the share, which exists; parts separated by `/`
    #[arg(long)]
    folder: Option<String>,
    /// The account
    #[arg(long)]
    user: Option<String>,
    /// Domain of the account, if it is not the server's own
    #[arg(long)]
    domain: Option<String>,
    /// The oldest SMB that is spoken [default: 3.1.1]
    #[arg(long, value_enum, value_name = "VERSION")]
    smb: Option<Smb>,
    /// Whether the connection is encrypted; archives always are [default: preferred]
    #[arg(long, value_enum, value_name = "WHETHER")]
    encryption: Option<Encrypted>,
    /// File whose first line is the password [default: ask]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Smb {
    #[value(name = "3.0")]
    Smb300,
    #[value(name = "3.0.2")]
    Smb302,
    #[value(name = "3.1.1")]
    Smb311,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encrypted {
    Required,
    Preferred,
    Off,
}

/// Try a share with exactly what is typed here; nothing is stored or changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup test --host nas.example.com --share backup --folder printers --user printer
  mfpsync backup test --host nas --share backup --user printer --encryption required --password-file secret.txt")]
pub(crate) struct TestArgs {
    #[command(flatten)]
    share: ShareArgs,
}

/// Make a key that opens archives, and set its recipient
///
/// The file is the only thing that opens archives which this device makes by itself: keep it apart from the
/// share and from this device. The public tool `age` understands it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup key --out backup-key.txt
  mfpsync backup key --out backup-key.txt --add")]
pub(crate) struct KeyFileArgs {
    /// Where to write the key; must not exist yet
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep the recipients that are set; archives are then opened by any of their keys
    #[arg(long)]
    add: bool,
}

/// Make an archive now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup now
  mfpsync backup now --with-passphrase
  mfpsync backup now --passphrase-file pass.txt --no-wait")]
pub(crate) struct NowArgs {
    /// Seal it with a passphrase that is asked for, instead of for the recipients that are set
    #[arg(long)]
    with_passphrase: bool,
    /// As --with-passphrase, from the file's first line
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Archives that were made here and are on the share no more were removed on purpose: old ones may go again
    #[arg(long)]
    accept_missing: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Args)]
struct WaitArgs {
    /// Return as soon as it is begun
    #[arg(long)]
    no_wait: bool,
}

/// List the archives on the share
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup list
  mfpsync backup list --kit second-floor.age
  mfpsync backup list --json | jq -r '.archives[0].id'")]
pub(crate) struct ListArgs {
    /// Of another group: its id
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    #[command(flatten)]
    kit: KitArgs,
}

/// What a member of the group believes archives by, and what certifies a server.
#[derive(Debug, Args)]
struct KitArgs {
    /// The group's recovery kit, where this device is no member of it or not certified as a server
    #[arg(long, value_name = "FILE")]
    kit: Option<PathBuf>,
    /// File whose first line is the kit's passphrase [default: ask]
    #[arg(long, value_name = "FILE", requires = "kit")]
    kit_passphrase_file: Option<PathBuf>,
}

/// What opens an archive.
#[derive(Debug, Args)]
struct KeyArgs {
    /// The file of a key, as `mfpsync backup key` or `age-keygen` writes it
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    key: Option<PathBuf>,
    /// File whose first line is the archive's passphrase [default: ask]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Prove an archive: read it back, and open it in scratch if its key is given
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup drill
  mfpsync backup drill --key backup-key.txt
  mfpsync backup drill 20261130T023000Z-0123456789abcdef --passphrase-file pass.txt")]
pub(crate) struct DrillArgs {
    /// Its id [default: the newest]
    archive: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Show what a restore would bring back, take away and change; nothing is changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup preview --key backup-key.txt
  mfpsync backup preview 20261130T023000Z-0123456789abcdef --passphrase-file pass.txt --json")]
pub(crate) struct PreviewArgs {
    /// Its id [default: the newest]
    archive: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    kit: KitArgs,
}

/// Make the group's data what an archive holds, with this device as the server
///
/// Run it at the server, or at a new machine when every device that could serve is lost: set the share there
/// (`mfpsync backup set`) and give the recovery kit. Devices that were released and users that were erased
/// since the archive stay so. All devices follow by themselves, and offer again what they hold beyond it.
/// Single items: `mfpsync backup bring-back`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup restore --key backup-key.txt
  mfpsync backup restore --key backup-key.txt --kit second-floor.age
  mfpsync backup restore 20261130T023000Z-0123456789abcdef --key backup-key.txt --accept-loss-of 12 --yes")]
pub(crate) struct RestoreArgs {
    /// Its id [default: the newest]
    archive: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    kit: KitArgs,
    /// Go on although N changes, as the refusal says, are not in the archive
    #[arg(long, value_name = "N", default_value_t = 0)]
    accept_loss_of: u64,
    /// Restore without asking
    #[arg(long)]
    yes: bool,
}

/// Bring back single items from an archive, as changes that can be taken back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup bring-back --scope user/1042 --key backup-key.txt
  mfpsync backup bring-back --kind address.shared --key backup-key.txt --replace
  mfpsync backup bring-back --scope shared --kind address.shared --id 0017 --key backup-key.txt --dry-run
  mfpsync backup bring-back --group 0123456789abcdef0123456789abcdef --key old-group-key.txt")]
pub(crate) struct BringBackArgs {
    /// Its id [default: the newest]
    archive: Option<String>,
    #[command(flatten)]
    key: KeyArgs,
    /// Whose: shared, or user/ID [default: everybody's]
    #[arg(long)]
    scope: Option<String>,
    /// What: ui.language, address.personal, or any other kind [default: everything]
    #[arg(long)]
    kind: Option<String>,
    /// One item, with --scope and --kind
    #[arg(long, requires_all = ["scope", "kind"])]
    id: Option<String>,
    /// Of a device-specific item: its device's id
    #[arg(long, requires = "id")]
    device: Option<String>,
    /// Also items that are here and differ: they become what they were
    #[arg(long)]
    replace: bool,
    /// From an archive of another group, by its id: its data becomes this group's
    #[arg(long, value_name = "ID")]
    group: Option<String>,
    /// Say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

/// Follow the job under way, or show the last one
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup watch
  mfpsync backup watch --json")]
pub(crate) struct WatchArgs {}

/// Stop the job under way; what it has done so far harms nothing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup cancel")]
pub(crate) struct CancelArgs {}

/// Forget share, password, schedule and rules; archives stay where they are
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync backup forget")]
pub(crate) struct ForgetArgs {}

/// Runs one of the backup commands.
///
/// # Errors
/// Nobody to ask, a person who is needed, or the daemon's refusal.
pub(crate) async fn run(context: &Context, command: BackupCommand) -> Result<Exit, Failure> {
    match command {
        BackupCommand::Status(StatusArgs {}) => status(context).await,
        BackupCommand::Set(args) => set(context, args).await,
        BackupCommand::Test(args) => test(context, &args).await,
        BackupCommand::Key(args) => key_file(context, &args).await,
        BackupCommand::Now(args) => now(context, &args).await,
        BackupCommand::List(args) => list(context, args).await,
        BackupCommand::Drill(args) => drill(context, args).await,
        BackupCommand::Preview(args) => preview(context, args).await,
        BackupCommand::Restore(args) => restore(context, args).await,
        BackupCommand::BringBack(args) => bring_back(context, args).await,
        BackupCommand::Watch(WatchArgs {}) => watch(context).await,
        BackupCommand::Cancel(CancelArgs {}) => cancel(context).await,
        BackupCommand::Forget(ForgetArgs {}) => forget(context).await,
    }
}

async fn settings(context: &Context) -> Result<SettingsReply, Failure> {
    let mut backup = context.sockets.backup().await?;
    context.sockets.call(backup.settings(SettingsRequest {})).await
}

async fn status(context: &Context) -> Result<Exit, Failure> {
    let reply = settings(context).await?;
    context.out.answer(&render::settings_text(&reply, now_unix_millis()), &render::settings_json(&reply))?;
    Ok(Exit::Ok)
}

impl ShareArgs {
    fn names_something(&self) -> bool {
        self.host.is_some()
            || self.port.is_some()
            || self.share.is_some()
            || self.folder.is_some()
            || self.user.is_some()
            || self.domain.is_some()
            || self.smb.is_some()
            || self.encryption.is_some()
    }

    /// What was named over what is set.
    fn over(&self, set: Option<Share>) -> Share {
        let mut share = set.unwrap_or_default();
        let take = |to: &mut String, named: &Option<String>| {
            if let Some(named) = named {
                to.clone_from(named);
            }
        };
        take(&mut share.host, &self.host);
        take(&mut share.share, &self.share);
        take(&mut share.folder, &self.folder);
        take(&mut share.user, &self.user);
        take(&mut share.domain, &self.domain);
        if let Some(port) = self.port {
            share.port = port.into();
        }
        if let Some(smb) = self.smb {
            share.set_minimum(match smb {
                Smb::Smb300 => Dialect::Smb300,
                Smb::Smb302 => Dialect::Smb302,
                Smb::Smb311 => Dialect::Smb311,
            });
        }
        if let Some(encryption) = self.encryption {
            share.set_encryption(match encryption {
                Encrypted::Required => Encryption::Required,
                Encrypted::Preferred => Encryption::Preferred,
                Encrypted::Off => Encryption::Off,
            });
        }
        share
    }
}

impl KeepArgs {
    fn over(&self, set: Option<Keep>) -> Option<Keep> {
        let named = [self.keep_newest, self.keep_days, self.keep_weeks, self.keep_months];
        named.iter().any(Option::is_some).then(|| {
            let set = set.unwrap_or_default();
            Keep {
                newest: self.keep_newest.unwrap_or(set.newest),
                days: self.keep_days.unwrap_or(set.days),
                weeks: self.keep_weeks.unwrap_or(set.weeks),
                months: self.keep_months.unwrap_or(set.months),
            }
        })
    }
}

fn minute(text: &str) -> Result<u32, String> {
    let bad = || format!("`{text}` is no time of the day, such as 02:30");
    let (hour, minute) = text.split_once(':').ok_or_else(bad)?;
    let (hour, minute): (u32, u32) = (hour.parse().map_err(|_| bad())?, minute.parse().map_err(|_| bad())?);
    if hour < 24 && minute < 60 { Ok(hour * 60 + minute) } else { Err(bad()) }
}

async fn set(context: &Context, args: SetArgs) -> Result<Exit, Failure> {
    let before = settings(context).await?;
    let mut request = SetRequest {
        share: args.share.names_something().then(|| args.share.over(before.share.clone())),
        password: String::new(),
        recipients: args.recipients,
        schedule: args.every.map(|every_hours| Schedule {
            every_hours,
            at_minute: args.at.or(before.schedule.as_ref().map(|set| set.at_minute)).unwrap_or(0),
        }),
        keep: args.keep.over(before.keep),
    };
    let file = args.share.password_file.as_deref();
    let share = request.share.as_ref().or(before.share.as_ref());
    if let Some(share) = share.filter(|_| file.is_some() || before.share.is_none()) {
        secret::password(&share.user, file).await?.reveal().clone_into(&mut request.password);
    }
    if request == SetRequest::default() {
        return Err(Failure::Usage("name something to set; see `mfpsync backup set --help`".to_owned()));
    }
    let mut backup = context.sockets.backup().await?;
    let mut reply = context.sockets.call(backup.set(request)).await?;
    if reply.password_forgotten {
        context.out.note("the stored password belonged to what was changed, and is forgotten")?;
        let user = reply.share.as_ref().map_or("", |share| &share.user).to_owned();
        // Without a terminal it stays so, and the status says it.
        if let Ok(password) = secret::password(&user, None).await {
            let request = SetRequest { password: password.reveal().to_owned(), ..SetRequest::default() };
            reply = context.sockets.call(backup.set(request)).await?;
        }
    }
    context.out.answer(&render::settings_text(&reply, now_unix_millis()), &render::settings_json(&reply))?;
    Ok(Exit::Ok)
}

async fn test(context: &Context, args: &TestArgs) -> Result<Exit, Failure> {
    let share = args.share.over(None);
    let password = secret::password(&share.user, args.share.password_file.as_deref()).await?;
    let mut backup = context.sockets.backup().await?;
    let request = TestRequest { share: Some(share), password: password.reveal().to_owned() };
    let reply = context.sockets.call_patiently(SHARE_PATIENCE, backup.test(request)).await?;
    let text = format!("it can be used: {}; {} free\n", printable(&reply.protection), size(reply.free_bytes));
    let json = json!({ "protection": reply.protection, "free_bytes": reply.free_bytes });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn key_file(context: &Context, args: &KeyFileArgs) -> Result<Exit, Failure> {
    let file = SecretFile::reserve(&args.out)?;
    let before = settings(context).await?;
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call(backup.new_key(NewKeyRequest {})).await?;
    let (identity, recipient) = (Secret::new(reply.identity), reply.recipient);
    file.fill(&format!("# opens archives of mfpsync\n# public key: {recipient}\n{}\n", identity.reveal()))?;
    // First the key is safe, then archives are sealed for it.
    let mut recipients = if args.add { before.recipients } else { Vec::new() };
    recipients.push(recipient.clone());
    context.sockets.call(backup.set(SetRequest { recipients, ..SetRequest::default() })).await?;
    let text = format!(
        "archives are sealed for {recipient} from now on, and {} alone opens them: keep it apart from the share and \
         from this device\n",
        args.out.display()
    );
    context.out.answer(&text, &json!({ "recipient": recipient, "file": args.out.display().to_string() }))?;
    Ok(Exit::Ok)
}

async fn now(context: &Context, args: &NowArgs) -> Result<Exit, Failure> {
    let passphrase = if args.with_passphrase || args.passphrase_file.is_some() {
        secret::new_passphrase("the archive", args.passphrase_file.as_deref()).await?
    } else {
        Secret::new("")
    };
    let mut backup = context.sockets.backup().await?;
    let request =
        BeginRequest { passphrase: passphrase.reveal().to_owned(), accept_missing: args.accept_missing };
    let job = context.sockets.call(backup.begin(request)).await?;
    finish(context, job, args.wait.no_wait).await
}

async fn list(context: &Context, args: ListArgs) -> Result<Exit, Failure> {
    let (recovery_kit, kit_passphrase) = args.kit.open().await?;
    let request = ArchivesRequest { group_id: args.group.unwrap_or_default(), recovery_kit, kit_passphrase };
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call_patiently(SHARE_PATIENCE, backup.archives(request)).await?;
    context.out.answer(&render::archives_text(&reply, now_unix_millis()), &render::archives_json(&reply))?;
    Ok(Exit::Ok)
}

impl KitArgs {
    async fn open(&self) -> Result<(String, String), Failure> {
        let Some(path) = &self.kit else { return Ok(Default::default()) };
        let kit = Kit::open(path, self.kit_passphrase_file.as_deref()).await?;
        Ok((kit.text.reveal().to_owned(), kit.passphrase.reveal().to_owned()))
    }
}

impl KeyArgs {
    fn is_given(&self) -> bool {
        self.key.is_some() || self.passphrase_file.is_some()
    }

    async fn open(&self) -> Result<Option<Key>, Failure> {
        match &self.key {
            Some(path) => Ok(Some(Key { identity: identity(path)?.reveal().to_owned(), ..Key::default() })),
            None => {
                let passphrase =
                    secret::passphrase_of("the archive", self.passphrase_file.as_deref()).await?;
                Ok(Some(Key { passphrase: passphrase.reveal().to_owned(), ..Key::default() }))
            }
        }
    }
}

/// The identity in a key file: its first line that is no comment.
fn identity(path: &Path) -> Result<Secret, Failure> {
    let failure = |source| Failure::File { action: "read", path: path.to_owned(), source };
    let text = Secret::new(std::fs::read_to_string(path).map_err(failure)?);
    let line = text.reveal().lines().find(|line| line.trim_start().starts_with("AGE-SECRET-KEY-"));
    let none = || Failure::BadInput(format!("{} holds no key (AGE-SECRET-KEY-1...)", path.display()));
    line.map(|line| Secret::new(line.trim())).ok_or_else(none)
}

async fn drill(context: &Context, args: DrillArgs) -> Result<Exit, Failure> {
    let key = if args.key.is_given() { args.key.open().await? } else { None };
    let request = DrillRequest { archive_id: args.archive.unwrap_or_default(), key };
    let mut backup = context.sockets.backup().await?;
    let job = context.sockets.call(backup.drill(request)).await?;
    finish(context, job, args.wait.no_wait).await
}

async fn preview(context: &Context, args: PreviewArgs) -> Result<Exit, Failure> {
    let request = restoring(args.archive, &args.key, &args.kit, 0).await?;
    let mut backup = context.sockets.backup().await?;
    let job = context.sockets.call(backup.preview(request)).await?;
    finish(context, job, false).await
}

async fn restoring(
    archive: Option<String>,
    key: &KeyArgs,
    kit: &KitArgs,
    accept_loss_of: u64,
) -> Result<RestoreRequest, Failure> {
    let (recovery_kit, kit_passphrase) = kit.open().await?;
    let (archive_id, key) = (archive.unwrap_or_default(), key.open().await?);
    Ok(RestoreRequest { archive_id, key, recovery_kit, kit_passphrase, accept_loss_of })
}

async fn restore(context: &Context, args: RestoreArgs) -> Result<Exit, Failure> {
    let mut request = restoring(args.archive, &args.key, &args.kit, args.accept_loss_of).await?;
    let mut backup = context.sockets.backup().await?;
    if !args.yes {
        let begun = context.sockets.call(backup.preview(request.clone())).await?;
        let job = followed(context, begun).await?;
        refused(&job)?;
        context.out.note(&render::job_text(&job, now_unix_millis()))?;
        let lost = job.comparison.as_ref().map_or(0, |comparison| comparison.changes_lost);
        let question = if lost == 0 {
            "Restore this?".to_owned()
        } else {
            format!(
                "Restore this, and lose what no device offers again of {}?",
                count(lost, "change", "changes")
            )
        };
        if !confirm::yes(&question).await? {
            return Err(Failure::Failed("nothing was restored".to_owned()));
        }
        // What was shown is what is done.
        request.accept_loss_of = lost;
        request.archive_id = job.archive.map_or_else(String::new, |archive| archive.id);
    }
    let job = context.sockets.call(backup.restore(request)).await?;
    finish(context, job, false).await
}

async fn bring_back(context: &Context, args: BringBackArgs) -> Result<Exit, Failure> {
    let request = BringBackRequest {
        archive_id: args.archive.unwrap_or_default(),
        key: args.key.open().await?,
        scope: args.scope.unwrap_or_default(),
        kind: args.kind.unwrap_or_default(),
        item_id: args.id.unwrap_or_default(),
        device: args.device.unwrap_or_default(),
        replace: args.replace,
        group_id: args.group.unwrap_or_default(),
        actor: args.actor,
        dry_run: args.dry_run,
    };
    let mut backup = context.sockets.backup().await?;
    let job = context.sockets.call(backup.bring_back(request)).await?;
    finish(context, job, false).await
}

async fn watch(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let mut jobs = context.sockets.call(backup.watch(WatchRequest {})).await?;
    let first = jobs.message().await?.ok_or(Failure::ConnectionLost)?;
    if first.number == 0 {
        context.out.answer("no job was begun since mfpsyncd started\n", &json!(null))?;
        return Ok(Exit::Ok);
    }
    finish(context, first, false).await
}

async fn cancel(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call(backup.cancel(CancelRequest {})).await?;
    let text = if reply.was_under_way { "the job ends now\n" } else { "no job is under way\n" };
    context.out.answer(text, &json!({ "was_under_way": reply.was_under_way }))?;
    Ok(Exit::Ok)
}

async fn forget(context: &Context) -> Result<Exit, Failure> {
    let mut backup = context.sockets.backup().await?;
    let reply = context.sockets.call(backup.forget(ForgetRequest {})).await?;
    let text = if reply.was_set { "forgotten; archives stay where they are\n" } else { "nothing was set\n" };
    context.out.answer(text, &json!({ "was_set": reply.was_set }))?;
    Ok(Exit::Ok)
}

/// Follows a job to its end and says what came of it.
async fn finish(context: &Context, begun: Job, no_wait: bool) -> Result<Exit, Failure> {
    if no_wait {
        context.out.answer("begun; `mfpsync backup watch` follows it\n", &render::job_json(&begun))?;
        return Ok(Exit::Ok);
    }
    let job = followed(context, begun).await?;
    refused(&job)?;
    context.out.answer(&render::job_text(&job, now_unix_millis()), &render::job_json(&job))?;
    Ok(Exit::Ok)
}

/// Why a job came to nothing, if it did.
///
/// # Errors
/// That.
pub(crate) fn refused(job: &Job) -> Result<(), Failure> {
    if job.failure.is_empty() { Ok(()) } else { Err(Failure::Failed(printable(&job.failure).into_owned())) }
}

/// Shows how far a job is until it has ended.
///
/// # Errors
/// The connection is lost, or nobody watches any more; the job goes on.
pub(crate) async fn followed(context: &Context, begun: Job) -> Result<Job, Failure> {
    if begun.ended {
        return Ok(begun);
    }
    let mut backup = context.sockets.backup().await?;
    let mut jobs = context.sockets.call(backup.watch(WatchRequest {})).await?;
    let bar = progress_bar(context);
    let followed = async {
        while let Some(job) = jobs.message().await? {
            if job.number != begun.number {
                // It ended before it was followed, and another one was begun.
                return Err(Failure::Failed(
                    "another job was begun since; see `mfpsync backup status`".to_owned(),
                ));
            }
            if job.ended {
                return Ok(job);
            }
            show(&bar, &job);
        }
        Err(Failure::ConnectionLost)
    };
    let job = tokio::select! {
        job = followed => job,
        _ = tokio::signal::ctrl_c() => Err(Failure::Failed(
            "no longer followed; the job goes on (`mfpsync backup watch`, `mfpsync backup cancel`)".to_owned(),
        )),
    };
    bar.finish_and_clear();
    job
}

fn show(bar: &ProgressBar, job: &Job) {
    bar.set_message(render::under_way(job));
    bar.set_length(job.of_bytes);
    bar.set_position(job.done_bytes);
}

fn progress_bar(context: &Context) -> ProgressBar {
    if context.out.json {
        return ProgressBar::hidden();
    }
    // Hides itself when standard error is no terminal.
    let bar = ProgressBar::no_length();
    match ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_plain_style_will_do) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_day_is_read_as_minutes() {
        assert_eq!((minute("02:30"), minute("0:0"), minute("23:59")), (Ok(150), Ok(0), Ok(1_439)));
        for bad in ["24:00", "2", "2:60", "a:b", "-1:00"] {
            assert!(minute(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_file_gives_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# public key: age1x\nAGE-SECRET-KEY-1ABC\n").unwrap();
        assert_eq!(identity(file.path()).unwrap().reveal(), "AGE-SECRET-KEY-1ABC");
        std::fs::write(file.path(), "age1x\n").unwrap();
        assert!(matches!(identity(file.path()), Err(Failure::BadInput(_))));
    }
}
