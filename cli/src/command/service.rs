//! `mfpsync metrics` and `mfpsync reload`: figures of the daemon, and its configuration read again.

use clap::Args;
use mfpsync_proto::monitor::{MetricsRequest, ReloadRequest};
use serde_json::json;

use super::Context;
use crate::exit::{Exit, Failure};

/// Print the daemon's metrics in the Prometheus text format
///
/// Needs no open port. For a scraper set `[metrics] listen` in the configuration.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync metrics
  mfpsync metrics | grep mfpsync_fault
  mfpsync metrics > /var/lib/node_exporter/mfpsync.prom")]
pub(crate) struct MetricsArgs {}

/// Read the configuration again and say which changes hold
///
/// A file with a mistake is refused whole; what was in force stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mfpsync reload
  mfpsync reload --json")]
pub(crate) struct ReloadArgs {}

/// Prints the metrics.
///
/// # Errors
/// An unreachable daemon.
pub(crate) async fn metrics(context: &Context) -> Result<Exit, Failure> {
    let mut monitor = context.sockets.monitor().await?;
    let reply = context.sockets.call(monitor.metrics(MetricsRequest {})).await?;
    context.out.answer(&reply.text, &json!({ "text": reply.text }))?;
    Ok(Exit::Ok)
}

/// Has the configuration read again.
///
/// # Errors
/// A mistake in the file, or an unreachable daemon.
pub(crate) async fn reload(context: &Context) -> Result<Exit, Failure> {
    let mut monitor = context.sockets.monitor().await?;
    let reply = context.sockets.call(monitor.reload(ReloadRequest {})).await?;
    let mut text = match &reply.applied[..] {
        [] => "nothing new holds".to_owned(),
        keys => format!("in force now: {}", keys.join(", ")),
    };
    if !reply.after_restart.is_empty() {
        text += &format!("\nin force after a restart: {}", reply.after_restart.join(", "));
    }
    context.out.answer(&text, &json!({ "applied": reply.applied, "after_restart": reply.after_restart }))?;
    Ok(Exit::Ok)
}
