//! P5: a client leaves, another one breaks down and is released, and a new machine comes.

use mfpsync_proto::panel::client_status::Link;
use mfpsync_proto::panel::{LeaveRequest, ReleaseDeviceRequest, StatusReply};

use super::super::fleet::{COPIER, FAX, NEWCOMER, PRINTER, SCANNER};
use super::super::steps;
use super::office::Office;
use crate::command::join;
use crate::exit::Failure;
use crate::output::printable;
use crate::wait::Verdict;

/// Edits at each of the clients that go.
const EDITS: usize = 5;

/// Tells it to its end.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(office: &mut Office<'_>) -> Result<(), Failure> {
    office.narrator.chapter("Edits at two clients")?;
    for client in [SCANNER, FAX] {
        office.edit(client, EDITS).await?;
        office.sent(client).await?;
    }
    office.complete(&[COPIER, PRINTER, SCANNER, FAX]).await?;

    office.narrator.chapter("scanner-3 leaves: `mfpsync leave`")?;
    let scanner = office.device(SCANNER)?.sockets.clone();
    let left = scanner.call(scanner.panel().await?.leave(LeaveRequest::default())).await?;
    office.narrator.say(&join::left(&left))?;
    office.screen(SCANNER).await?;

    office.narrator.chapter("fax-4 breaks down, and is released at copier-1: `mfpsync release ID`")?;
    let device_id = office.status(FAX).await?.device_id;
    office.fleet.kill(FAX).await?;
    let copier = office.device(COPIER)?.sockets.clone();
    let request = ReleaseDeviceRequest { device_id };
    let released = copier.call(copier.panel().await?.release_device(request)).await?;
    office.narrator.say(&format!(
        "{} is released: its slot is free, and it counts no more",
        printable(&released.device_name)
    ))?;
    office.screen(COPIER).await?;

    office.narrator.chapter("copier-5 comes in its place")?;
    office.start(NEWCOMER).await?;
    let address = office.device(COPIER)?.address;
    steps::join(office.narrator, office.fleet, COPIER, NEWCOMER, address).await?;
    office.edit(NEWCOMER, EDITS).await?;
    office.complete(&[COPIER, PRINTER, NEWCOMER]).await?;

    office.narrator.chapter("fax-4 is mended and switched on again")?;
    office.start(FAX).await?;
    office.until(FAX, "the server to refuse it", refused).await?;
    office.narrator.say("it is refused, and says why")?;
    office.screen(FAX).await
}

fn refused(status: &StatusReply) -> Verdict {
    match status.client.as_ref().map(mfpsync_proto::panel::ClientStatus::link) {
        Some(Link::Refused) => Verdict::Reached,
        Some(Link::Unspecified | Link::Connecting | Link::CatchingUp | Link::Current | Link::Waiting)
        | None => Verdict::NotYet,
    }
}
