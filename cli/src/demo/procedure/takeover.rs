//! P3: the server is lost, its replica takes over, and the old server comes back.

use std::time::Instant;

use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{RetireServerRequest, Role, StatusReply, Succession};

use super::super::fleet::{COPIER, FAX, PRINTER, SCANNER};
use super::super::narrator::took;
use super::office::{Office, all_safe};
use crate::command::role;
use crate::exit::Failure;
use crate::output::printable;
use crate::render::units::count;
use crate::wait::{self, Verdict};

/// Edits at each client that the replica has before it hangs.
const COPIED: usize = 10;
/// Edits that the server confirms while the replica hangs, at one client and at the other.
const CONFIRMED_BY_ONE: [(usize, usize); 2] = [(SCANNER, 6), (FAX, 4)];

/// Tells it to its end.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(office: &mut Office<'_>) -> Result<(), Failure> {
    lose_server(office).await?;
    take_over(office).await?;
    old_server_returns(office).await
}

/// The server is lost for good when it has confirmed more than its replica got.
///
/// # Errors
/// The step that failed.
pub(super) async fn lose_server(office: &mut Office<'_>) -> Result<(), Failure> {
    office
        .narrator
        .chapter("printer-2 becomes the replica: `mfpsync replication set printer-2 --kit FILE`")?;
    office.replicate(COPIER, PRINTER).await?;
    for client in [SCANNER, FAX] {
        office.edit(client, COPIED).await?;
        office.sent(client).await?;
    }
    office.until(COPIER, "everything to be safe", all_safe).await?;
    office.screen(COPIER).await?;

    office.narrator.chapter("printer-2 hangs, and copier-1 alone confirms what is edited now")?;
    office.fleet.freeze(PRINTER)?;
    for (client, number) in CONFIRMED_BY_ONE {
        office.edit(client, number).await?;
    }
    for (client, _number) in CONFIRMED_BY_ONE {
        let kept = office.sent(client).await?.client.map_or(0, |client| client.retained);
        let name = office.device(client)?.name;
        office
            .narrator
            .say(&format!("{name}: all confirmed; it keeps {kept} of them until a second device has them"))?;
    }
    office.screen(COPIER).await?;

    office.narrator.chapter("copier-1 is lost")?;
    office.fleet.kill(COPIER).await?;
    office.fleet.thaw(PRINTER)?;
    for device in [PRINTER, SCANNER, FAX] {
        office.until(device, "the loss of the server to be noticed", noticed).await?;
    }
    office.narrator.say("copier-1 was killed; printer-2 goes on; all panels work on")?;
    office.screen(SCANNER).await?;
    office.screen(PRINTER).await
}

/// The replica takes over, and the clients follow.
///
/// # Errors
/// The step that failed.
pub(super) async fn take_over(office: &mut Office<'_>) -> Result<(), Failure> {
    office.narrator.chapter("printer-2 takes over: `mfpsync role promote --server-is-lost`")?;
    let context = office.context(PRINTER)?;
    let decided = Instant::now();
    let promoted = role::take_over(&context.sockets, true, None).await?;
    let known = count(promoted.missing_at_most, "change", "changes");
    office.narrator.say(&format!("known to be missing, at the most: {known}"))?;
    office.narrator.say(&role::what_is_missing(&promoted))?;
    role::reach(&context, promoted.wanted()).await?;
    office.narrator.say(&format!("printer-2 serves {} after the decision", took(decided.elapsed())))?;
    office.first_write(PRINTER, &[SCANNER, FAX], decided).await?;
    office.complete(&[PRINTER, SCANNER, FAX]).await?;
    office.until(PRINTER, "the devices to say what they hold", all_back).await?;
    office.screen(PRINTER).await
}

async fn old_server_returns(office: &mut Office<'_>) -> Result<(), Failure> {
    office.narrator.chapter("copier-1 is switched on again")?;
    let began = Instant::now();
    office.start(COPIER).await?;
    office.becomes(COPIER, Role::Client).await?;
    office.until(COPIER, "arrival of the group's data", wait::link_reached).await?;
    office.narrator.say(&format!(
        "it does not serve again: sealed by its successor's record, a client after {}",
        took(began.elapsed())
    ))?;
    office.complete(&[COPIER, PRINTER, SCANNER, FAX]).await?;
    office.screen(COPIER).await?;
    let sockets = office.device(COPIER)?.sockets.clone();
    let retired = sockets.call(sockets.panel().await?.retire_server(RetireServerRequest {})).await?;
    office
        .narrator
        .say(&format!("`mfpsync role retire`: its database is kept as {}", printable(&retired.path)))?;
    office.narrator.chapter("copier-1 becomes the replica: `mfpsync replication set copier-1 --kit FILE`")?;
    office.replicate(PRINTER, COPIER).await?;
    office.screen(PRINTER).await
}

/// Neither the panel nor the copy, if there is one, is connected any more.
pub(super) fn noticed(status: &StatusReply) -> Verdict {
    if status.copy.as_ref().is_some_and(|copy| copy.connected) {
        return Verdict::NotYet;
    }
    match status.client.as_ref().map(mfpsync_proto::panel::ClientStatus::link) {
        Some(Link::Waiting) => Verdict::Reached,
        Some(Link::Unspecified | Link::Connecting | Link::CatchingUp | Link::Current | Link::Refused)
        | None => Verdict::NotYet,
    }
}

/// What the copy lacked is held by devices that follow.
fn all_back(status: &StatusReply) -> Verdict {
    match status.server.as_ref().map(|server| server.succession.as_ref()) {
        Some(None | Some(Succession { missing: 0, .. })) => Verdict::Reached,
        Some(Some(_)) | None => Verdict::NotYet,
    }
}
