//! Following a job of the daemon's to its end.

use indicatif::{ProgressBar, ProgressStyle};
use mfpsync_proto::backup::{Job, WatchRequest};

use crate::command::{Context, now_unix_millis};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::render::backup as render;

/// Follows a job to its end and says what came of it.
pub(super) async fn finish(context: &Context, begun: Job, no_wait: bool) -> Result<Exit, Failure> {
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
