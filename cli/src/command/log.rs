//! `mfpsync log`: what happened between this device and others.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mfpsync_proto::monitor::{Communication, CommunicationsRequest, Level};

use super::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::render::log;
use crate::since::Ago;

/// Entries of one request.
const PAGE: u32 = 1_000;

/// Show what happened between this device and others, newest first
///
/// Connections, refusals, pushes, pairing, members, roles and faults. What repeats is one line with a
/// count and the last time. Users and items are never named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync log
  mfpsync log --level warning --since 2d
  mfpsync log --code C-REFUSED --code C-LOST --peer 'Copier, 2nd floor'
  mfpsync log --follow --json
  mfpsync log --since 7d --download log.csv")]
pub(crate) struct LogArgs {
    /// This level and above
    #[arg(long, value_enum)]
    level: Option<LevelArg>,
    /// Only this code; may be repeated
    #[arg(long, value_name = "CODE")]
    code: Vec<String>,
    /// Only this device, by id or name
    #[arg(long, value_name = "DEVICE", default_value = "", hide_default_value = true)]
    peer: String,
    /// What happened so long ago or later (45m, 2h, 3d)
    #[arg(long, value_name = "AGO")]
    since: Option<Ago>,
    /// What began before so long ago
    #[arg(long, value_name = "AGO", conflicts_with = "follow")]
    until: Option<Ago>,
    /// At most so many entries; a download has all
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    limit: u32,
    /// Then go on with what happens, until Ctrl-C
    #[arg(long)]
    follow: bool,
    /// Write all of it, oldest first, to a new file: CSV, or JSON lines if its name ends in .json or
    /// .jsonl
    #[arg(long, value_name = "FILE", conflicts_with = "follow")]
    download: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelArg {
    Info,
    Notice,
    Warning,
    Error,
}

impl LogArgs {
    fn request(&self, now: u64) -> CommunicationsRequest {
        let level = match self.level {
            None => Level::Unspecified,
            Some(LevelArg::Info) => Level::Info,
            Some(LevelArg::Notice) => Level::Notice,
            Some(LevelArg::Warning) => Level::Warning,
            Some(LevelArg::Error) => Level::Error,
        };
        CommunicationsRequest {
            level: level.into(),
            codes: self.code.clone(),
            peer: self.peer.clone(),
            since_unix_millis: self.since.map_or(0, |ago| ago.before(now)),
            until_unix_millis: self.until.map_or(0, |ago| ago.before(now)),
            ..CommunicationsRequest::default()
        }
    }
}

/// Shows, follows or downloads the log.
///
/// # Errors
/// A wrong filter, a file that cannot be written, or an unreachable daemon.
pub(crate) async fn run(context: &Context, args: LogArgs) -> Result<Exit, Failure> {
    let now = now_unix_millis();
    let request = args.request(now);
    if let Some(path) = &args.download {
        let mut entries = fetch(context, request, usize::MAX).await?;
        entries.reverse();
        write(path, &entries)?;
        let text = format!("{} entries in {}", entries.len(), path.display());
        let json = serde_json::json!({ "entries": entries.len(), "file": path.display().to_string() });
        context.out.answer(&text, &json)?;
        return Ok(Exit::Ok);
    }
    if args.follow {
        return follow(context, request, args.limit).await;
    }
    let entries = fetch(context, request, args.limit as usize).await?;
    context.out.answer(&log::text(&entries, now), &log::json(&entries))?;
    Ok(Exit::Ok)
}

async fn fetch(
    context: &Context,
    mut request: CommunicationsRequest,
    wanted: usize,
) -> Result<Vec<Communication>, Failure> {
    let mut monitor = context.sockets.monitor().await?;
    let mut entries: Vec<Communication> = Vec::new();
    while entries.len() < wanted {
        request.limit = u32::try_from(wanted - entries.len()).unwrap_or(u32::MAX).min(PAGE);
        let reply = context.sockets.call(monitor.communications(request.clone())).await?;
        entries.extend(reply.entries);
        request.before_number = reply.next;
        if reply.next == 0 {
            break;
        }
    }
    Ok(entries)
}

/// The stream is opened first, so that nothing is missed; what comes twice is the same entry.
async fn follow(context: &Context, request: CommunicationsRequest, limit: u32) -> Result<Exit, Failure> {
    let mut monitor = context.sockets.monitor().await?;
    let mut stream = monitor.follow_communications(request.clone()).await?.into_inner();
    let mut entries = fetch(context, request, limit as usize).await?;
    entries.reverse();
    for entry in &entries {
        context.out.event(&log::line(entry, now_unix_millis()), &log::entry(entry))?;
    }
    loop {
        let entry = tokio::select! {
            entry = stream.message() => entry?.ok_or(Failure::ConnectionLost)?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        };
        context.out.event(&log::line(&entry, now_unix_millis()), &log::entry(&entry))?;
    }
}

/// A file that is there is left alone.
fn write(path: &std::path::Path, entries: &[Communication]) -> Result<(), Failure> {
    use std::io::Write as _;
    let lines = path.extension().is_some_and(|extension| extension == "json" || extension == "jsonl");
    let text = if lines { log::json_lines(entries) } else { log::csv(entries) };
    let unusable = |error| Failure::Failed(format!("write {}: {error}", path.display()));
    let mut file = std::fs::File::create_new(path).map_err(unusable)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(unusable)
}
