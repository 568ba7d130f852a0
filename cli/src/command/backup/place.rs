//! Where archives go, for whom they are sealed, when they are made and which are kept.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mfpsync_proto::backup::{
    Dialect, Encryption, Keep, NewKeyRequest, Schedule, SetRequest, Share, TestRequest,
};
use serde_json::json;

use super::{SHARE_PATIENCE, settings};
use crate::command::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::backup as render;
use crate::render::units::size;
use crate::secret::{self, Secret};
use crate::secret_file::SecretFile;

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

pub(super) async fn set(context: &Context, args: SetArgs) -> Result<Exit, Failure> {
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

pub(super) async fn test(context: &Context, args: &TestArgs) -> Result<Exit, Failure> {
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

pub(super) async fn key_file(context: &Context, args: &KeyFileArgs) -> Result<Exit, Failure> {
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
}
