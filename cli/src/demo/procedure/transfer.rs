//! P1 and P2: the server hands over while everybody works, to a client or to a machine from outside.

use std::time::Instant;

use mfpsync_proto::panel::Role;

use super::super::fleet::{COPIER, NEWCOMER, PRINTER, SCANNER};
use super::super::narrator::took;
use super::super::steps;
use super::office::{Office, all_safe};
use crate::command::transfer;
use crate::exit::Failure;
use crate::output::printable;

/// Edits before the server hands over.
const BEFORE: usize = 10;
/// Edits at a client while the server hands over: each is taken by the one or by the other.
const MEANWHILE: usize = 5;

/// P1: the server changes places with a client.
///
/// # Errors
/// The step that failed.
pub(super) async fn to_a_client(office: &mut Office<'_>) -> Result<(), Failure> {
    edit_before(office).await?;
    hand_over(office, PRINTER).await?;
    office.complete(&[COPIER, PRINTER, SCANNER]).await?;
    office.screen(PRINTER).await
}

/// P2: a machine that was just unpacked takes the server's place.
///
/// # Errors
/// The step that failed.
pub(super) async fn to_a_newcomer(office: &mut Office<'_>) -> Result<(), Failure> {
    edit_before(office).await?;
    office.narrator.chapter("copier-5 is unpacked and paired")?;
    office.start(NEWCOMER).await?;
    let address = office.device(COPIER)?.address;
    steps::join(office.narrator, office.fleet, COPIER, NEWCOMER, address).await?;
    hand_over(office, NEWCOMER).await?;
    office.complete(&[COPIER, PRINTER, SCANNER, NEWCOMER]).await?;
    office.screen(NEWCOMER).await
}

async fn edit_before(office: &mut Office<'_>) -> Result<(), Failure> {
    office.narrator.chapter("copier-1 serves, without a replica")?;
    office.edit(SCANNER, BEFORE).await?;
    office.sent(SCANNER).await?;
    office.screen(COPIER).await
}

/// The server hands over to `to`, goes on as its replica, and everybody follows.
async fn hand_over(office: &mut Office<'_>, to: usize) -> Result<(), Failure> {
    let name = office.device(to)?.name;
    office.narrator.chapter(&format!("copier-1 hands over: `mfpsync transfer {name} --kit FILE`"))?;
    office.replicate(COPIER, to).await?;
    let context = office.context(COPIER)?;
    let decided = Instant::now();
    let (transferred, ()) = tokio::try_join!(transfer::hand_over(&context), office.edit(SCANNER, MEANWHILE))?;
    office.narrator.say(&format!(
        "{} is the server {} after the decision",
        printable(&transferred.device_name),
        took(decided.elapsed())
    ))?;
    let others: Vec<usize> = [COPIER, PRINTER, SCANNER].into_iter().filter(|device| *device != to).collect();
    office.first_write(to, &others, decided).await?;
    office.becomes(COPIER, Role::ReplicaClient).await?;
    office.until(to, "everything to be safe", all_safe).await?;
    office.narrator.say("copier-1 is its replica now, with the database it had")
}
