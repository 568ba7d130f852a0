//! `mfpsync user`: what a person finds at this device, as firmware would see it.

use clap::{Args, Subcommand};
use mfpsync_proto::local::{LoginReply, LoginRequest, LogoutRequest};
use serde_json::{Value, json};

use super::{Context, item};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::items;

/// Show a person's items, or log a person in and out as firmware does
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    Show(ShowArgs),
    Login(LoginArgs),
    Logout(LogoutArgs),
}

/// List everything of one person, by kind, without logging in
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync user show alice")]
pub(crate) struct ShowArgs {
    /// The user's id
    user: String,
}

/// Log a person in: their items at once, or fresher ones if they come in time
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync user login alice
  mfpsync user login alice --wait 1000 --json")]
pub(crate) struct LoginArgs {
    /// The user's id
    user: String,
    /// Milliseconds to wait for fresher data when this device is not current, at most 2000
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=2000))]
    wait: Option<u32>,
}

/// Log a person out
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync user logout alice")]
pub(crate) struct LogoutArgs {
    /// The user's id
    user: String,
}

/// Runs one user command.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn run(context: &Context, command: UserCommand) -> Result<Exit, Failure> {
    match command {
        UserCommand::Show(args) => {
            let found = item::list(&context.sockets, &format!("user/{}", args.user), "").await?;
            let json: Vec<Value> = found.iter().map(items::json).collect();
            context.out.answer(&items::by_kind(&found), &json!({ "user": args.user, "items": json }))?;
        }
        UserCommand::Login(args) => {
            let mut local = context.sockets.local().await?;
            let request = LoginRequest { user: args.user.clone(), wait_millis: args.wait };
            let reply = context.sockets.call(local.login(request)).await?;
            context.out.answer(&login_text(&args.user, &reply), &login_json(&args.user, &reply))?;
        }
        UserCommand::Logout(args) => {
            let mut local = context.sockets.local().await?;
            context.sockets.call(local.logout(LogoutRequest { user: args.user.clone() })).await?;
            let text = format!("{} is logged out here", printable(&args.user));
            context.out.answer(&text, &json!({ "user": args.user, "logged_in": false }))?;
        }
    }
    Ok(Exit::Ok)
}

fn login_text(user: &str, reply: &LoginReply) -> String {
    let freshness = items::freshness_text(reply.freshness.as_ref());
    format!("{} is logged in here ({freshness})\n\n{}", printable(user), items::by_kind(&reply.items))
}

fn login_json(user: &str, reply: &LoginReply) -> Value {
    let items_json: Vec<Value> = reply.items.iter().map(items::json).collect();
    let freshness = items::freshness_json(reply.freshness.as_ref());
    json!({ "user": user, "logged_in": true, "freshness": freshness, "items": items_json })
}
