//! What opens archives: to prove one, to see what it holds, to restore it or parts of it.

use std::path::{Path, PathBuf};

use clap::Args;
use mfpsync_proto::backup::{BringBackRequest, DrillRequest, Key, RestoreRequest};

use super::WaitArgs;
use super::following::{finish, followed, refused};
use crate::command::{Context, now_unix_millis};
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::kit::Kit;
use crate::render::backup as render;
use crate::render::units::count;
use crate::secret::{self, Secret};

/// What a member of the group believes archives by, and what certifies a server.
#[derive(Debug, Args)]
pub(super) struct KitArgs {
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

impl KitArgs {
    pub(super) async fn open(&self) -> Result<(String, String), Failure> {
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

pub(super) async fn drill(context: &Context, args: DrillArgs) -> Result<Exit, Failure> {
    let key = if args.key.is_given() { args.key.open().await? } else { None };
    let request = DrillRequest { archive_id: args.archive.unwrap_or_default(), key };
    let mut backup = context.sockets.backup().await?;
    let job = context.sockets.call(backup.drill(request)).await?;
    finish(context, job, args.wait.no_wait).await
}

pub(super) async fn preview(context: &Context, args: PreviewArgs) -> Result<Exit, Failure> {
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

pub(super) async fn restore(context: &Context, args: RestoreArgs) -> Result<Exit, Failure> {
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

pub(super) async fn bring_back(context: &Context, args: BringBackArgs) -> Result<Exit, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_gives_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# public key: age1x\nAGE-SECRET-KEY-1ABC\n").unwrap();
        assert_eq!(identity(file.path()).unwrap().reveal(), "AGE-SECRET-KEY-1ABC");
        std::fs::write(file.path(), "age1x\n").unwrap();
        assert!(matches!(identity(file.path()), Err(Failure::BadInput(_))));
    }
}
