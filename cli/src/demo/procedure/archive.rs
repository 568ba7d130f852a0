//! The server is lost with its disk and there is no replica: it comes back from an archive on a file server.

use std::time::Instant;

use mfpsync_proto::backup::{
    BeginRequest, Dialect, Encryption, Job, Key, NewKeyRequest, RestoreRequest, SetRequest, Share,
};
use mfpsync_proto::panel::{Role, StartClientRequest};

use super::super::file_server::{PASSWORD, SHARE};
use super::super::fleet::{COPIER, NEWCOMER, PRINTER, SCANNER};
use super::super::narrator::took;
use super::office::Office;
use super::takeover::noticed;
use crate::command::{backup, now_unix_millis};
use crate::exit::Failure;
use crate::render::backup as render;
use crate::sockets::Sockets;

/// Edits that the archive has, edits that came after it, and edits that were made while there was no server.
const EDITS: [usize; 3] = [6, 5, 4];

/// Tells it to its end.
///
/// # Errors
/// The step that failed.
pub(super) async fn tell(office: &mut Office<'_>) -> Result<(), Failure> {
    office.narrator.chapter("A file server, as any office has one")?;
    let began = Instant::now();
    let share = office.fleet.start_file_server().await?;
    office.narrator.say(&format!("Samba serves //{}/{SHARE} after {}", share.host, took(began.elapsed())))?;

    office.narrator.chapter("copier-1 makes an archive: `mfpsync backup set`, `key`, `now`")?;
    let sockets = office.device(COPIER)?.sockets.clone();
    set(&sockets, &share).await?;
    let key = sockets.call(sockets.backup().await?.new_key(NewKeyRequest {})).await?;
    let recipients = SetRequest { recipients: vec![key.recipient], ..SetRequest::default() };
    sockets.call(sockets.backup().await?.set(recipients)).await?;
    office.edit(SCANNER, EDITS[0]).await?;
    office.sent(SCANNER).await?;
    let began = Instant::now();
    let begun = sockets.call(sockets.backup().await?.begin(BeginRequest::default())).await?;
    let job = done(office, COPIER, begun).await?;
    office
        .narrator
        .say(&format!("taken, sealed, opened for a proof, sent, read back: {}", took(began.elapsed())))?;
    office.narrator.show(&render::job_text(&job, now_unix_millis()))?;
    office.edit(PRINTER, EDITS[1]).await?;
    office.sent(PRINTER).await?;
    office.complete(&[COPIER, PRINTER, SCANNER]).await?;
    office.narrator.say("that came after the archive, which does not have it")?;

    office.narrator.chapter("copier-1 is lost, with its disk")?;
    office.fleet.kill(COPIER).await?;
    office.fleet.lose_disk(COPIER)?;
    for device in [PRINTER, SCANNER] {
        office.until(device, "the loss of the server to be noticed", noticed).await?;
    }
    office.edit(SCANNER, EDITS[2]).await?;
    office.screen(SCANNER).await?;

    office.narrator.chapter("copier-5 comes to its place: `mfpsync backup restore --key FILE --kit FILE`")?;
    office.fleet.take_address(NEWCOMER, COPIER)?;
    office.start(NEWCOMER).await?;
    let sockets = office.device(NEWCOMER)?.sockets.clone();
    set(&sockets, &share).await?;
    let request = RestoreRequest {
        key: Some(Key { identity: key.identity, ..Key::default() }),
        recovery_kit: office.kit.text.reveal().to_owned(),
        kit_passphrase: office.kit.passphrase.reveal().to_owned(),
        ..RestoreRequest::default()
    };
    let decided = Instant::now();
    let begun = sockets.call(sockets.backup().await?.restore(request)).await?;
    let job = done(office, NEWCOMER, begun).await?;
    office.narrator.say(&format!("fetched, opened, begun anew: {}", took(decided.elapsed())))?;
    office.narrator.show(&render::job_text(&job, now_unix_millis()))?;
    sockets.call(sockets.panel().await?.start_client(StartClientRequest {})).await?;
    office.becomes(NEWCOMER, Role::ServerClient).await?;
    office.first_write(NEWCOMER, &[PRINTER, SCANNER], decided).await?;
    office.complete(&[NEWCOMER, PRINTER, SCANNER]).await?;
    office.narrator.say("what the archive did not have came back from the devices")?;
    office.screen(NEWCOMER).await
}

/// Waits for the end of a job.
async fn done(office: &Office<'_>, at: usize, begun: Job) -> Result<Job, Failure> {
    let job = backup::followed(&office.context(at)?, begun).await?;
    backup::refused(&job)?;
    Ok(job)
}

async fn set(sockets: &Sockets, share: &Share) -> Result<(), Failure> {
    let share =
        Share { minimum: Dialect::Smb311.into(), encryption: Encryption::Preferred.into(), ..share.clone() };
    let request = SetRequest { share: Some(share), password: PASSWORD.to_owned(), ..SetRequest::default() };
    sockets.call(sockets.backup().await?.set(request)).await.map(drop)
}
