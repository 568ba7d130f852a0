//! P4: the server is lost, and rebuilt on another machine from its replica's copy.

use std::time::Instant;

use mfpsync_proto::monitor::MetricsRequest;
use mfpsync_proto::panel::Role;

use super::super::fleet::{FAX, NEWCOMER, PRINTER, SCANNER};
use super::super::narrator::took;
use super::super::steps;
use super::office::{Office, all_safe};
use super::takeover;
use crate::command::transfer;
use crate::exit::Failure;
use crate::render::units::size;

/// Bytes that a server has sent to its replica.
const SENT_TO_REPLICA: &str = "mfpsync_replica_sent_bytes_total";

/// Tells it to its end.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(office: &mut Office<'_>) -> Result<(), Failure> {
    takeover::lose_server(office).await?;
    takeover::take_over(office).await?;

    office.narrator.chapter("copier-5 comes in the place of copier-1")?;
    office.start(NEWCOMER).await?;
    let code = steps::pairing_code(office.narrator, office.fleet, PRINTER).await?;
    let from = office.device(PRINTER)?.address.to_string();
    office.narrator.say(&format!("`mfpsync recover --from {from} --code … --kit FILE` at copier-5"))?;
    let context = office.context(NEWCOMER)?;
    let began = Instant::now();
    transfer::take_over(&context, from, Some(code), &office.kit).await?;
    office.narrator.say(&format!(
        "copier-5 serves {} after the decision: paired, certified, copied",
        took(began.elapsed())
    ))?;
    office.first_write(NEWCOMER, &[PRINTER, SCANNER, FAX], began).await?;

    office.becomes(PRINTER, Role::ReplicaClient).await?;
    office.until(NEWCOMER, "the copy to be complete", transfer::replica_ready).await?;
    let ready = office.until(NEWCOMER, "everything to be safe", all_safe).await?;
    let database = ready.server.map_or(0, |server| server.database_bytes);
    let metrics = context.sockets.call(context.sockets.monitor().await?.metrics(MetricsRequest {})).await?;
    let sent = sample(&metrics.text, SENT_TO_REPLICA)
        .ok_or_else(|| Failure::Failed(format!("copier-5 does not count {SENT_TO_REPLICA}")))?;
    office.narrator.say(&format!(
        "printer-2 goes on as the replica, with the copy it has: {} of {} were sent",
        size(sent),
        size(database)
    ))?;
    office.complete(&[NEWCOMER, PRINTER, SCANNER, FAX]).await?;
    office.screen(NEWCOMER).await
}

/// One number of the Prometheus text.
fn sample(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_found_by_its_whole_name() {
        let text = "# TYPE sent counter\nsent_parts 3\nsent 4096\n";
        assert_eq!(sample(text, "sent"), Some(4096));
        assert_eq!(sample(text, "parts"), None);
    }
}
