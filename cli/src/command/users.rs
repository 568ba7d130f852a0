//! `mfpsync users`: the people whose data the group holds, and what a person finds at this device.

use clap::{Args, Subcommand};
use mfpsync_proto::local::{AcknowledgeNoticesRequest, LoginReply, LoginRequest, LogoutRequest};
use mfpsync_proto::records::{ErasuresRequest, UserRequest, UsersRequest};
use serde_json::{Value, json};

use super::{Context, item};
use crate::confirm;
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::units::{count, revision_json};
use crate::render::{items, users};

mod portable;

/// Erasing wipes a user's whole history; more than an answer usually takes.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// List, export, delete and erase users; show what a person finds at this device
#[derive(Debug, Subcommand)]
pub(crate) enum UsersCommand {
    List(ListArgs),
    Search(SearchArgs),
    Show(ShowArgs),
    Export(portable::ExportArgs),
    Import(portable::ImportArgs),
    Delete(DeleteArgs),
    Erase(EraseArgs),
    Readmit(ReadmitArgs),
    Login(LoginArgs),
    Logout(LogoutArgs),
}

/// List the users this device knows
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users list
  mfpsync users list --json | jq -r '.users[].id'")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    limit: LimitArgs,
}

/// Find users by a part of their id or name
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users search ali")]
pub(crate) struct SearchArgs {
    /// Part of an id or display name, in any case
    text: String,
    #[command(flatten)]
    limit: LimitArgs,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// At most so many
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// List everything of one person, by kind, without logging in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users show alice")]
pub(crate) struct ShowArgs {
    /// The user's id
    user: String,
}

/// Who is meant, and who asks.
#[derive(Debug, Args)]
struct PersonArgs {
    /// The user's id
    user: String,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

impl PersonArgs {
    fn request(&self) -> UserRequest {
        UserRequest { user: self.user.clone(), actor: self.actor.clone() }
    }
}

/// Delete everything of one person
///
/// The history keeps the old values for its window, so this can be undone at the server. To leave no
/// trace, use `mfpsync users erase`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users delete alice
  mfpsync users delete alice --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    person: PersonArgs,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

/// Erase one person for good
///
/// Run it at the group's server. All items are deleted, old values are wiped from the history, and every
/// device forgets what it holds of this user as soon as it hears of it. Until `mfpsync users readmit`
/// nothing of this user is taken, from wherever it comes. It cannot be undone. With --status: which
/// devices have confirmed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users erase alice
  mfpsync users erase alice --yes
  mfpsync users erase --status
  mfpsync users erase alice --status --json")]
pub(crate) struct EraseArgs {
    /// The user's id
    #[arg(required_unless_present = "status")]
    user: Option<String>,
    /// Show which devices have confirmed, and which have still to
    #[arg(long, conflicts_with = "yes")]
    status: bool,
    /// Do it without having the id typed again
    #[arg(long)]
    yes: bool,
    /// Who did it, as the history shall show it
    #[arg(long, default_value = "mfpsync")]
    actor: String,
}

/// Open an erased person's id again, for new data
///
/// Run it at the group's server. What was made before stays refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users readmit alice")]
pub(crate) struct ReadmitArgs {
    #[command(flatten)]
    person: PersonArgs,
}

/// Log a person in: their items at once, or fresher ones if they come in time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users login alice
  mfpsync users login alice --wait 1000 --json
  mfpsync users login alice --acknowledge")]
pub(crate) struct LoginArgs {
    /// The user's id
    user: String,
    /// Also note that the person has seen the notices shown
    #[arg(long)]
    acknowledge: bool,
    /// Milliseconds to wait for fresher data when this device is not current, at most 2000
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=2000))]
    wait: Option<u32>,
}

/// Log a person out
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync users logout alice")]
pub(crate) struct LogoutArgs {
    /// The user's id
    user: String,
}

/// Runs one of the users commands.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn run(context: &Context, command: UsersCommand) -> Result<Exit, Failure> {
    match command {
        UsersCommand::List(args) => list(context, "", args.limit.limit).await,
        UsersCommand::Search(args) => list(context, &args.text, args.limit.limit).await,
        UsersCommand::Show(args) => show(context, &args.user).await,
        UsersCommand::Export(args) => portable::export(context, args).await,
        UsersCommand::Import(args) => portable::import(context, args).await,
        UsersCommand::Delete(args) => delete(context, &args).await,
        UsersCommand::Erase(args) => erase(context, args).await,
        UsersCommand::Readmit(args) => readmit(context, &args).await,
        UsersCommand::Login(args) => login(context, args).await,
        UsersCommand::Logout(args) => logout(context, args).await,
    }
}

async fn list(context: &Context, search: &str, limit: u32) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let mut found = Vec::new();
    let wanted = limit as usize;
    let more = loop {
        let request = UsersRequest {
            search: search.to_owned(),
            after: found
                .last()
                .map_or_else(String::new, |user: &mfpsync_proto::records::User| user.id.clone()),
            limit: u32::try_from(wanted - found.len()).unwrap_or(u32::MAX),
        };
        let reply = context.sockets.call(records.users(request)).await?;
        found.extend(reply.users);
        if !reply.more || found.len() >= wanted {
            break reply.more;
        }
    };
    context.out.answer(&users::text(&found, more), &users::json(&found, more))?;
    Ok(Exit::Ok)
}

async fn show(context: &Context, user: &str) -> Result<Exit, Failure> {
    let found = item::list(&context.sockets, &format!("user/{user}"), "").await?;
    let json: Vec<Value> = found.iter().map(items::json).collect();
    context.out.answer(&items::by_kind(&found), &json!({ "user": user, "items": json }))?;
    Ok(Exit::Ok)
}

async fn delete(context: &Context, args: &DeleteArgs) -> Result<Exit, Failure> {
    let user = printable(&args.person.user);
    if !args.yes && !confirm::yes(&format!("Delete everything of {user} on all devices?")).await? {
        return Err(Failure::Failed("nothing was deleted".to_owned()));
    }
    let mut records = context.sockets.records().await?;
    let reply = context.sockets.call_patiently(PATIENCE, records.delete_user(args.person.request())).await?;
    let way = if reply.on_its_way { ", on the way to the server" } else { "" };
    let text = format!("{} of {user} deleted{way}", count(reply.items, "item", "items"));
    let json = json!({ "user": args.person.user, "items": reply.items, "on_its_way": reply.on_its_way });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn erase(context: &Context, args: EraseArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let user = args.user.unwrap_or_default();
    if args.status {
        let reply = context.sockets.call(records.erasures(ErasuresRequest { user })).await?;
        context.out.answer(&users::erasures_text(&reply), &users::erasures_json(&reply))?;
        return Ok(Exit::Ok);
    }
    if !args.yes {
        context.out.note("this erases the person from every device and from the history, for good")?;
        if confirm::typed("Type the user's id to go on: ").await? != user {
            return Err(Failure::Failed("that is another id; nothing was erased".to_owned()));
        }
    }
    let request = UserRequest { user: user.clone(), actor: args.actor };
    let reply = context.sockets.call_patiently(PATIENCE, records.erase_user(request)).await?;
    let text = format!(
        "{} is erased ({}); devices follow as they hear of it: `mfpsync users erase --status`",
        printable(&user),
        count(reply.items, "item", "items"),
    );
    let json = json!({
        "user": user,
        "items": reply.items,
        "hash": reply.hash,
        "revision": revision_json(reply.revision.as_ref()),
    });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn readmit(context: &Context, args: &ReadmitArgs) -> Result<Exit, Failure> {
    let mut records = context.sockets.records().await?;
    let reply = context.sockets.call(records.readmit_user(args.person.request())).await?;
    let text = format!("{} may have data again", printable(&args.person.user));
    let json = json!({
        "user": args.person.user,
        "generation": reply.generation,
        "revision": revision_json(reply.revision.as_ref()),
    });
    context.out.answer(&text, &json)?;
    Ok(Exit::Ok)
}

async fn login(context: &Context, args: LoginArgs) -> Result<Exit, Failure> {
    let mut local = context.sockets.local().await?;
    let request = LoginRequest { user: args.user.clone(), wait_millis: args.wait };
    let reply = context.sockets.call(local.login(request)).await?;
    context.out.answer(&login_text(&args.user, &reply), &login_json(&args.user, &reply))?;
    if args.acknowledge && !reply.notices.is_empty() {
        let ids = reply.notices.iter().map(|notice| notice.id.clone()).collect();
        let request = AcknowledgeNoticesRequest { user: args.user, ids };
        context.sockets.call(local.acknowledge_notices(request)).await?;
    }
    Ok(Exit::Ok)
}

async fn logout(context: &Context, args: LogoutArgs) -> Result<Exit, Failure> {
    let mut local = context.sockets.local().await?;
    context.sockets.call(local.logout(LogoutRequest { user: args.user.clone() })).await?;
    let text = format!("{} is logged out here", printable(&args.user));
    context.out.answer(&text, &json!({ "user": args.user, "logged_in": false }))?;
    Ok(Exit::Ok)
}

fn login_text(user: &str, reply: &LoginReply) -> String {
    let freshness = items::freshness_text(reply.freshness.as_ref());
    let notices = users::notices_text(reply);
    format!(
        "{} is logged in here ({freshness})\n\n{}{notices}",
        printable(user),
        items::by_kind(&reply.items)
    )
}

fn login_json(user: &str, reply: &LoginReply) -> Value {
    let items_json: Vec<Value> = reply.items.iter().map(items::json).collect();
    let freshness = items::freshness_json(reply.freshness.as_ref());
    json!({
        "user": user, "logged_in": true, "freshness": freshness, "items": items_json,
        "notices": users::notices_json(reply), "more_notices": reply.more_notices,
    })
}
